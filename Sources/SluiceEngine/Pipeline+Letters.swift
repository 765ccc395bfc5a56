internal import Logging
public import SluiceCore

/// How many dead letters were tried again, and what came of them.
public struct RetryCount: Codable, Hashable, Sendable {
    /// Rows that are written now.
    public var written = 0
    /// Rows that are refused still.
    public var refused = 0
    /// Rows of which only a part was known, so that they are read first.
    public var unread = 0
}

extension Pipeline {
    // MARK: Dead letters

    /// How often it is looked for dead letters of which the time has come.
    private static let lettersPauseMax = Duration.seconds(10)
    /// How long a retry waits for the batch on its way.
    private static let retryPatience = Duration.seconds(30)

    /// Tries dead letters again as their time comes.
    func retryByAndBy() async {
        while !Task.isCancelled {
            try? await pause(min(retryAfter, Self.lettersPauseMax))
            guard hasLetters, state == .streaming || state == .baseline else { continue }
            guard let outcome = try? await retry(LetterChoice(isDueOnly: true)) else { continue }
            if !outcome.written.isEmpty {
                logger.info(
                    "Rows that were set aside are written",
                    metadata: ["rows": "\(outcome.written.count)"])
            }
        }
    }

    /// Tries dead letters again now.
    ///
    /// - Returns: What came of it, or nil when the database can't be asked.
    public func retryLetters(_ choice: LetterChoice) async -> RetryCount? {
        var count = RetryCount()
        var choice = choice
        while true {
            guard let outcome = try? await retry(choice) else { return nil }
            count.written += outcome.written.count
            count.refused += outcome.refused.count
            count.unread += outcome.unread.count
            guard outcome.hasMore else { return count }
            // The first time made all that were chosen due.
            choice.isDueOnly = true
        }
    }

    private func retry(_ choice: LetterChoice) async throws -> LetterOutcome {
        let checkpoint = try await beginRetry()
        do throws(SinkError) {
            let outcome = try await sink.retry(choice, at: checkpoint)
            machine?.endRetry(outcome)
            doorbell.ring()
            return outcome
        } catch {
            endRetry(error)
            throw error
        }
    }

    /// Forgets the values of dead letters, and tries no more to write them.
    ///
    /// - Returns: How many there were, or nil when the database can't be asked.
    public func discardLetters(_ choice: LetterChoice) async -> Int? {
        guard let checkpoint = try? await beginRetry() else { return nil }
        do throws(SinkError) {
            let count = try await sink.discard(choice, at: checkpoint)
            machine?.endDiscard(choice)
            doorbell.ring()
            return count
        } catch {
            endRetry(error)
            return nil
        }
    }

    // One method of the sink is called at a time.
    private func beginRetry() async throws -> Checkpoint {
        let end = now + Self.retryPatience
        while now < end, !isDraining {
            if let checkpoint = machine?.beginRetry() ?? nil { return checkpoint }
            try await pause(.milliseconds(5))
        }
        throw SinkError(.retry, code: "sink.busy", "a batch is on its way")
    }

    private func endRetry(_ error: SinkError) {
        logger.warning("Dead letters could not be tried", metadata: ["why": "\(error)"])
        machine?.endRetry(nil)
        if error.response == .fenced { failure = error }
        doorbell.ring()
    }

    // MARK: Going on after a halt

    /// Tries what the database did not take at once.
    ///
    /// - Parameter setsAside: Whether rows become dead letters, however many they are.
    /// - Returns: Whether anything waits for that.
    public func resume(setsAside: Bool) -> Bool {
        guard state == .halted || state == .retrying else { return false }
        resumption = setsAside
        return true
    }

    /// Waits before the next try to commit; for a person when most rows are refused.
    ///
    /// - Returns: Whether rows are to be set aside, however many they are.
    func pause(after error: SinkError, _ duration: Duration) async -> Bool {
        let end = now + duration
        while !Task.isCancelled, error.code == SinkError.refusesMost || now < end {
            if let resumption {
                self.resumption = nil
                return resumption
            }
            try? await pause(min(.milliseconds(100), max(.milliseconds(1), end - now)))
        }
        return false
    }
}

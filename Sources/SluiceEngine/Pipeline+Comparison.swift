internal import NIOCore
public import SluiceCore

/// Somebody who compares, and holds the stream for it.
struct ComparisonState {
    /// The number of the last hold.
    var number = 0
    var isHeld = false
    var waiter: CheckedContinuation<Bool, Never>?
}

extension Pipeline {
    /// The longest that the stream is held: whoever compares may have died.
    static let holdMax = Duration.seconds(10)

    /// Holds the stream where it is, until ``release(_:)`` or for ten seconds.
    ///
    /// - Returns: The place; nil while there is none, or while somebody else holds it.
    public func hold() -> HeldPlace? {
        guard !isHeld(comparison.number), isStreaming, let place = machine?.hold() ?? nil else {
            return nil
        }
        // Whoever waited for an earlier hold, which is over, is not answered by this one.
        refuseComparison()
        comparison.number = Int.random(in: 1..<1 << 52)
        comparison.isHeld = true
        let number = comparison.number
        loop.scheduleTask(in: .nanoseconds(Self.holdMax.nanoseconds)) {
            self.assumeIsolated { _ = $0.release(number) }
        }
        return HeldPlace(number: number, offset: place.offset, history: place.history.digits)
    }

    /// Lets the stream go on to a place, holds it there, and waits until the database has everything
    /// up to there.
    ///
    /// - Parameter place: The hold's number, and where to.
    /// - Returns: False when the hold is over, or the place is not to be reached.
    public func advance(to place: HeldPlace) async -> Bool {
        guard isHeld(place.number), comparison.waiter == nil,
            machine?.processed?.history.digits == place.history,
            machine?.advance(to: place.offset) == true
        else { return false }
        return await withCheckedContinuation { waiter in
            comparison.waiter = waiter
            processHeld()
            doorbell.ring()
        }
    }

    /// Lets the stream go on.
    ///
    /// - Parameter number: The hold's.
    /// - Returns: Whether the stream was held up to now: else what was read meanwhile means nothing.
    public func release(_ number: Int) -> Bool {
        let wasHeld = isHeld(number)
        guard comparison.number == number, comparison.isHeld else { return false }
        comparison.isHeld = false
        machine?.release()
        answerComparison()
        processHeld()
        doorbell.ring()
        return wasHeld
    }

    // The machine lets go by itself when the link is lost, or where another history begins.
    private func isHeld(_ number: Int) -> Bool {
        comparison.isHeld && comparison.number == number && machine?.isStopWanted == true
    }

    /// Answers who waits for a place that is not to be reached.
    func refuseComparison() {
        comparison.waiter?.resume(returning: false)
        comparison.waiter = nil
    }

    /// Answers who waits for the place.
    func answerComparison() {
        guard let waiter = comparison.waiter else { return }
        let isOver = machine?.isStopWanted != true
        guard isOver || machine?.hasStopped == true else { return }
        comparison.waiter = nil
        waiter.resume(returning: !isOver)
    }
}

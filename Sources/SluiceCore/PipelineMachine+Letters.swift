extension PipelineMachine {
    // MARK: Dead letters

    /// Begins to try dead letters, or does not because something else is on its way to the database.
    ///
    /// Nothing is committed until ``endRetry(_:)``.
    ///
    /// - Returns: What was committed last, or nil when it is not the time.
    public mutating func beginRetry() -> Checkpoint? {
        guard flight == nil, !isRetrying, halt == nil, stop == nil else { return nil }
        isRetrying = true
        return committed
    }

    /// Takes in that a person had the values of dead letters forgotten.
    public mutating func endDiscard(_ choice: LetterChoice) {
        isRetrying = false
        interpreter.buffer.discardPending(choice)
    }

    /// Takes what came of dead letters that were tried; nil when nobody knows.
    public mutating func endRetry(_ outcome: LetterOutcome?) {
        isRetrying = false
        guard let outcome else { return }
        counters.revived += outcome.written.count
        for letter in outcome.written {
            interpreter.revive(letter, isBaselineRunning: baseline.isRunning)
        }
        for letter in outcome.unread {
            // A letter of all a key's members, or of what was too large to be named.
            let isOfKey =
                letter.identity.member.isEmpty && interpreter.hasMembers(table: letter.table)
            // Of such a key the stream has said everything since; what it had is not there to be read.
            if isOfKey, letter.code == Misfit.Code.vanished.rawValue { continue }
            if letter.operation == .clear || isOfKey {
                interpreter.readAgain(letter)
            } else {
                lookAgain([letter.identity], table: letter.table)
            }
        }
    }
}

extension PipelineMachine {
    // MARK: Why keys went

    /// Whether any table treats removals by their cause, so that key events are needed.
    public static func needsCauses(_ mappings: [TableMapping]) -> Bool {
        mappings.contains(where: \.needsCause)
    }

    /// Whether the stream is held only until it is known why a key went.
    public var isWaitingForCauses: Bool {
        isCauseWanted && reading == nil && gap == nil && halt == nil
    }

    /// Whether key events say why keys go that are removed from now on.
    public var hearsCauses: Bool { interpreter.causes.isListening && wereCausesReliable }

    /// Notes that key events are listened to from an offset on.
    ///
    /// - Parameter isReliable: Whether the server publishes such events, as far as it says.
    public mutating func causesHeard(
        from offset: Int64, history: ReplicationID, isReliable: Bool = true,
    ) {
        guard history == (gap ?? processed)?.history else { return }
        interpreter.causes.listen(from: offset)
        wereCausesReliable = isReliable
    }

    /// Notes that nobody listens any more: why keys go is in doubt, and their rows stay.
    public mutating func causesLost() {
        interpreter.causes.stop()
        isCauseWanted = false
        isAskingCauses = false
        lookAheadUntil = nil
    }

    /// Takes the key events since they were asked for last.
    ///
    /// When ``lookAheadUntil`` is set after this, the driver passes each command up to that offset to
    /// ``lookAhead(_:arguments:)`` without taking it, and then calls ``lookedAhead()``.
    ///
    /// - Parameters:
    ///   - events: The events.
    ///   - offset: Where the stream was when they were complete.
    ///   - history: The history that the server said it is in.
    ///   - isReliable: Whether the server publishes such events, as far as it says.
    ///   - isUndisturbed: Whether it did so all the time since the last answer.
    public mutating func causesAnswered(
        _ events: [KeyEvent], offset: Int64, history: ReplicationID, isReliable: Bool,
        isUndisturbed: Bool = true,
    ) {
        guard isAskingCauses else { return }
        isAskingCauses = false
        guard history == processed?.history else { return causesLost() }
        let wasReliable = wereCausesReliable
        wereCausesReliable = isReliable
        guard isReliable, wasReliable, isUndisturbed else {
            // Events may be missing up to here: those between two places at which the server says
            // that it publishes them are complete.
            interpreter.causes.listen(from: offset)
            isCauseWanted = false
            return
        }
        let mine = events.filter { event in
            interpreter.mappings.contains {
                $0.needsCause && $0.database == event.database
                    && $0.keys.matches(event.key.span)
            }
        }
        if mine.isEmpty {
            interpreter.causes.learn([], upTo: offset)
            isCauseWanted = false
        } else {
            interpreter.causes.learn(mine, upTo: processed?.offset ?? 0)
            lookAheadUntil = offset
            lookAheadDatabase = processed?.database ?? 0
            countStaged()
        }
    }

    // The removals of a transaction that is held at its end were taken in already.
    private mutating func countStaged() {
        guard stage.isOpen else { return }
        let bytes = stage.bytes
        for index in 0..<stage.count {
            let arguments = stage.command(index).arguments
            lookAhead(bytes.span, arguments: arguments)
        }
    }

    static func database(
        _ bytes: borrowing Span<UInt8>, _ arguments: [Range<Int>],
    ) -> Int? {
        guard arguments.count == 2 else { return nil }
        return Number.integer(bytes.extracting(arguments[1])).map(Int.init)
    }

    /// Looks at a command before it is taken.
    public mutating func lookAhead(_ bytes: borrowing Span<UInt8>, arguments: [Range<Int>]) {
        guard arguments.count == 2 else { return }
        switch interpreter.name(bytes.extracting(arguments[0])) {
        case .select:
            lookAheadDatabase = Self.database(bytes, arguments) ?? lookAheadDatabase
        case .del, .unlink:
            interpreter.causes.count(
                bytes.extracting(arguments[1]), in: lookAheadDatabase)
        default: break
        }
    }

    /// Notes that all commands up to ``lookAheadUntil`` were looked at.
    public mutating func lookedAhead() {
        guard let offset = lookAheadUntil else { return }
        interpreter.causes.extend(to: offset)
        lookAheadUntil = nil
        isCauseWanted = false
    }

    /// Notes that the commands up to ``lookAheadUntil`` can't be looked at: they are in doubt.
    public mutating func lookAheadFailed() {
        guard let offset = lookAheadUntil else { return }
        interpreter.causes.listen(from: offset)
        lookAheadUntil = nil
        isCauseWanted = false
    }
}

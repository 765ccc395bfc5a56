import SluiceCore

/// Makes batches from commands, through a real machine.
struct BatchWriter: ~Copyable {
    private var machine: PipelineMachine
    private var now = Duration.zero
    private var last: Checkpoint

    /// The batch that begins: a position, and a baseline of nothing.
    static func first(_ stored: StoredState) -> Batch {
        var to = stored.checkpoint
        to.sequence += 1
        to.position = Position(history: ReplicationID("h"), offset: 100, database: 0)
        to.isBaselineDone = true
        return Batch(from: stored.checkpoint, to: to)
    }

    init(_ checkpoint: Checkpoint) {
        last = checkpoint
        machine = PipelineMachine(
            mappings: SinkConformance.mappings, policy: PipelinePolicy(),
            stored: StoredState(checkpoint: checkpoint), seed: 1,
        )
        machine.linkContinued(history: nil)
        machine.causesHeard(from: checkpoint.position?.offset ?? 0, history: ReplicationID("h"))
    }

    /// A checkpoint that no batch leads to.
    var afterNext: Checkpoint {
        var checkpoint = last
        checkpoint.sequence += 9
        return checkpoint
    }

    mutating func send(_ arguments: String...) { send(arguments, .deleted) }

    /// Sends a command; when it removes a key, for this cause, or one that nobody knows.
    mutating func send(_ arguments: [String], _ cause: RemovalCause?) {
        let command = CommandText(arguments)
        guard !machine.receive(command), case .askCauses = machine.next(now: now),
            let history = machine.processed?.history
        else { return }
        let event = cause.map {
            KeyEvent(key: Array(arguments[1].utf8), database: 0, cause: $0)
        }
        machine.causesAnswered(
            [event].compactMap { $0?.cause == .deleted ? nil : $0 },
            offset: machine.streamOffset + 10, history: history, isReliable: cause != nil)
        machine.lookAhead(command.bytes.span, arguments: command.arguments)
        machine.lookedAhead()
        machine.receive(command)
    }

    /// The batch that some commands lead to.
    mutating func batch(_ commands: (inout BatchWriter) -> Void) -> Batch {
        commands(&self)
        machine.chunkReceived(now: now)
        now += .seconds(5)
        machine.requestCut()
        guard case .commit(let batch) = machine.next(now: now) else {
            preconditionFailure("no batch is due")
        }
        machine.committed(BatchOutcome(), now: now)
        // The next commands must not fold into values that the buffer knows.
        machine.forgetClean()
        last = batch.to
        return batch
    }
}

import SluiceCore
import SluiceTesting
import Testing

/// A machine that is given commands, and answers to its questions, one by one.
final class MachineDriver {
    private var history = ReplicationID("h")
    static let start: Int64 = 100
    /// How long each command is taken to be, in bytes of the stream.
    private static let length: Int64 = 10

    private(set) var machine: PipelineMachine
    private var now = Duration.zero

    /// - Parameters:
    ///   - isNew: Whether everything is to be read first.
    ///   - mayFieldsExpire: Whether fields of hashes may have deadlines.
    ///   - offset: Where the stream goes on.
    ///   - strays: The tables that have rows without a key.
    ///   - isBaselineDone: Whether no baseline is to begin.
    init(
        _ mappings: [TableMapping], loose: [LooseRow] = [], letters: [DeadLetter] = [],
        isNew: Bool = false, mayFieldsExpire: Bool = false,
        policy: PipelinePolicy = PipelinePolicy(),
        offset: Int64 = MachineDriver.start, strays: Set<String> = [], isBaselineDone: Bool = true,
    ) {
        let position = Position(history: history, offset: offset, database: 0)
        var checkpoint = Checkpoint(
            epoch: 1, sequence: 1, position: isNew ? nil : position,
            isBaselineDone: isBaselineDone && !isNew)
        checkpoint.strays = strays
        machine = PipelineMachine(
            mappings: mappings, policy: policy,
            stored: StoredState(checkpoint: checkpoint, loose: loose, deadLetters: letters),
            seed: 1,
        )
        machine.learn(
            ModelTraffic.descriptions(saysTypes: true), mayFieldsExpire: mayFieldsExpire)
        if isNew {
            machine.linkResynchronised(position)
        } else {
            machine.linkContinued(history: nil)
        }
        machine.causesHeard(from: offset, history: history)
    }

    /// - Parameter cause: Why a key goes, if one does; nil when nobody knows.
    func send(_ line: String, _ cause: RemovalCause? = .deleted) {
        let command = CommandText(line.split(separator: " ").map(String.init))
        guard !machine.receive(command, length: Int(Self.length)),
            case .askCauses = machine.next(now: now)
        else { return }
        let key = String(line.split(separator: " ")[1])
        let event = KeyEvent(key: Array(key.utf8), database: 0, cause: cause ?? .deleted)
        machine.causesAnswered(
            event.cause == .deleted ? [] : [event], offset: machine.streamOffset + Self.length,
            history: history, isReliable: cause != nil)
        machine.lookAhead(command.bytes.span, arguments: command.arguments)
        machine.lookedAhead()
        machine.receive(command, length: Int(Self.length))
    }

    /// Answers the reads with what stands after commands of the stream that are still to come.
    func read(
        _ value: ReadValue, strings: ReadValue? = nil, scores: ReadValue? = nil, type: Bytes? = nil,
        after lines: [String],
        until later: [String] = [],
    ) throws {
        let due = nextRead()
        let items = try #require(due, "no read is due")
        let offset = machine.streamOffset + Self.length * Int64(lines.count)
        machine.readFinished(
            items.map { item in
                let other = [RedisType.string: strings, .sortedSet: scores][item.type] ?? nil
                return ReadResult(value: other ?? value, typeName: type)
            }, offset: offset,
            until: offset + Self.length * Int64(later.count), history: history,
            now: now)
    }

    /// The read that is due, if one is.
    ///
    /// - Parameter asksCut: Whether a client waits for a commit; else a baseline alone asks for it.
    func nextRead(asksCut: Bool = true) -> [ReadItem]? {
        now += asksCut ? .seconds(1) : .milliseconds(100)
        machine.chunkReceived(now: now)
        if asksCut { machine.requestCut() }
        guard case .read(let items) = machine.next(now: now) else { return nil }
        return items
    }

    /// Answers a baseline's scan.
    ///
    /// - Parameters:
    ///   - isAfterCut: Whether what is due is committed first.
    ///   - meanwhile: What happens before the answer.
    func scan(_ keys: [String], isAfterCut: Bool = true, meanwhile: () -> Void = {}) {
        if isAfterCut {
            now += .seconds(1)
            if case .commit = machine.next(now: now) {
                machine.committed(BatchOutcome(), now: now)
            }
        }
        guard case .scan = machine.next(now: now) else {
            Issue.record("no scan is due")
            return
        }
        meanwhile()
        machine.scanFinished(
            keys.map { Array($0.utf8) }, cursor: Array("0".utf8), offset: machine.streamOffset,
            history: history, now: now)
    }

    /// Commits what is due and answers what the database has, until a baseline is over.
    ///
    /// - Parameters:
    ///   - value: What is read meanwhile; nil when nothing is to be read.
    ///   - missing: The rows that the database has, none of which has a key.
    ///   - duringSweep: What happens while the database's rows are looked up.
    ///   - afterRead: What happens after each read.
    ///   - apply: What the database does with each batch.
    /// - Returns: The batch that ends it.
    func endBaseline(
        _ value: ReadValue? = nil, missing: [RowIdentity] = [], duringSweep: () -> Void = {},
        afterRead: () -> Void = {}, apply: (Batch) -> Void = { _ in },
    ) -> Batch? {
        for _ in 0..<19 {
            now += .seconds(1)
            machine.chunkReceived(now: now)
            switch machine.next(now: now) {
            case .commit(let batch):
                apply(batch)
                machine.committed(BatchOutcome(), now: now)
                if batch.to.isBaselineDone { return batch }
            case .read(let items):
                guard let value else { return nil }
                machine.readFinished(
                    items.map { _ in ReadResult(value: value) }, offset: machine.streamOffset,
                    until: machine.streamOffset, history: history, now: now)
                afterRead()
            case .sweep:
                duringSweep()
                machine.sweepFinished(
                    rows: missing.count, missing: missing, outlived: [:], last: nil,
                    offset: machine.streamOffset, history: history, now: now)
            default: return nil
            }
        }
        return nil
    }

    /// Has rows without a key looked for and deleted.
    func reconcile() { #expect(machine.reconcile(limits: ["scores": 9]) == nil) }

    /// Commits what is due until a pass for rows without a key is over.
    ///
    /// - Parameters:
    ///   - rows: The rows that the database has, none of which has a key.
    ///   - duringSweep: What happens while they are looked up; it returns what is read after that.
    /// - Returns: The batch that ends it.
    func endPass(rows: [RowIdentity], duringSweep: () -> ReadValue) -> Batch? {
        var value: ReadValue?
        for _ in 0..<19 {
            now += .seconds(1)
            machine.chunkReceived(now: now)
            switch machine.next(now: now) {
            case .commit(let batch):
                machine.committed(BatchOutcome(), now: now)
                if case .done = machine.reconciliation?.phase { return batch }
            case .read(let items):
                machine.readFinished(
                    items.map { item in
                        if case .member = item.target { return ReadResult(value: .missing) }
                        return ReadResult(value: value ?? .missing)
                    }, offset: machine.streamOffset, until: machine.streamOffset, history: history,
                    now: now)
            case .sweep:
                value = duringSweep()
                machine.sweepFinished(
                    rows: rows.count, missing: rows, outlived: [:], last: nil,
                    offset: machine.streamOffset, history: history, now: now)
            default: return nil
            }
        }
        return nil
    }

    /// Loses the server for its successor, which goes on from what was processed.
    func failOver() {
        machine.linkLost()
        history = ReplicationID("successor")
        machine.linkContinued(history: history)
        machine.causesHeard(from: machine.streamOffset, history: history)
    }

    /// Begins anew after a gap.
    func resynchronise(at offset: Int64 = 1_000) {
        machine.linkLost()
        history = ReplicationID("another-\(offset)")
        machine.linkResynchronised(Position(history: history, offset: offset, database: 0))
        machine.causesHeard(from: offset, history: history)
    }

    /// Commits what is due.
    ///
    /// - Parameters:
    ///   - isLate: Whether so late that nothing is waited for.
    ///   - apply: What the database does with the batch; it returns the rows that it refuses.
    func cut(isLate: Bool = false, _ apply: (Batch) -> [DeadLetter] = { _ in [] }) -> Batch? {
        now += .seconds(1)
        machine.chunkReceived(now: now)
        machine.requestCut()
        if isLate {
            _ = machine.next(now: now)
            machine.readFailed(now: now, pause: .seconds(20))
            now += .seconds(10)
        }
        guard case .commit(let batch) = machine.next(now: now) else { return nil }
        machine.committed(BatchOutcome(refused: apply(batch)), now: now)
        return batch
    }

    /// Answers reads with what stands after some commands of the stream that are still to come.
    func answer(_ items: [ReadItem], _ value: ReadValue, ahead: Int) {
        let offset = machine.streamOffset + Int64(ahead) * Self.length
        machine.readFinished(
            items.map { _ in ReadResult(value: value) }, offset: offset, until: offset,
            history: history, now: now)
    }

    /// Begins to stop, and commits so late that nothing is waited for.
    func drainLate(_ apply: (Batch) -> Void) {
        machine.drain()
        now += .seconds(1)
        _ = machine.next(now: now)
        machine.readFailed(now: now, pause: .seconds(20))
        now += .seconds(10)
        guard case .commit(let batch) = machine.next(now: now) else { return }
        apply(batch)
        machine.committed(BatchOutcome(), now: now)
        // Reads are tried again.
        now += .seconds(30)
    }

    /// Loses the server, and commits while the time stands still.
    ///
    /// - Returns: How many batches there were, at most as many as said.
    func commitsAfterLoss(atMost count: Int) -> Int {
        now += .seconds(3)
        machine.linkLost()
        for done in 0..<count {
            guard case .commit = machine.next(now: now) else { return done }
            machine.committed(BatchOutcome(), now: now)
        }
        return count
    }

    /// Receives a command while a batch is on its way.
    func fold(_ line: String) {
        machine.receive(
            CommandText(line.split(separator: " ").map(String.init)), length: Int(Self.length))
    }

    /// Has everything committed; whether that comes to its end.
    ///
    /// - Parameter losing: Whether the server is lost.
    func drain(losing: Bool = true, _ apply: (Batch) -> Void) -> Bool {
        if losing { machine.linkLost() }
        machine.drain()
        for _ in 0..<9 {
            now += .seconds(1)
            switch machine.next(now: now) {
            case .commit(let batch):
                apply(batch)
                machine.committed(BatchOutcome(), now: now)
            case .finish: return true
            default: break
            }
        }
        return false
    }

    /// Answers what is to be read, and commits, until nothing is due.
    ///
    /// - Parameter value: What each read finds; nil when none is due.
    func settle(_ value: ReadValue?) -> [Batch] {
        var batches: [Batch] = []
        for _ in 0..<9 {
            now += .seconds(1)
            machine.chunkReceived(now: now)
            machine.requestCut()
            switch machine.next(now: now) {
            case .commit(let batch):
                batches.append(batch)
                machine.committed(BatchOutcome(), now: now)
            case .read(let items):
                guard let value else { return batches }
                machine.readFinished(
                    items.map { _ in ReadResult(value: value) }, offset: machine.streamOffset,
                    until: machine.streamOffset, history: history, now: now)
            default: return batches
            }
        }
        return batches
    }

    /// Has a row looked at that the database has.
    func lookAgain(_ row: RowIdentity, table: String) { machine.lookAgain([row], table: table) }

    /// Has a dead letter written that was tried while this went on.
    func revive(_ letter: DeadLetter) {
        _ = machine.beginRetry()
        var outcome = LetterOutcome()
        outcome.written = [letter]
        machine.endRetry(outcome)
    }

    /// Says what a server would say of commands.
    func learn(_ descriptions: [CommandDescription]) { machine.learn(descriptions) }

    /// Has the values of dead letters forgotten.
    func discard(_ choice: LetterChoice) {
        _ = machine.beginRetry()
        machine.endDiscard(choice)
    }

    /// Has a dead letter tried that says nothing of the whole row.
    func retry(_ letter: DeadLetter) throws {
        let committed = machine.beginRetry()
        try #require(committed != nil)
        var outcome = LetterOutcome()
        outcome.unread = [letter]
        machine.endRetry(outcome)
    }
}

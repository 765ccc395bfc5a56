import SluiceCore
import SluiceTesting
import Testing

@Suite("Pipeline machine")
struct PipelineMachineTests {
    static let mapping = TableMapping(
        name: "counters",
        keys: KeyPattern(segments: [
            .literal(Array("c:".utf8)), .placeholder(Column(name: "id", type: .text)),
        ]), type: .string, columns: [Column(name: "value", type: .integer)],
    )

    /// A machine that stands at offset 100, with its baseline done.
    static func machine(_ policy: PipelinePolicy = PipelinePolicy()) -> PipelineMachine {
        let checkpoint = Checkpoint(
            epoch: 1, sequence: 1,
            position: Position(history: ReplicationID("h"), offset: 100, database: 0),
            isBaselineDone: true,
        )
        var machine = PipelineMachine(
            mappings: [mapping], policy: policy,
            stored: StoredState(checkpoint: checkpoint), seed: 1,
        )
        machine.linkContinued(history: nil)
        return machine
    }

    @Test("a row that was refused while it changed is read, and not changed again")
    func refusedWhileChanged() throws {
        var machine = Self.machine()
        machine.send("INCRBY", "c:a", "5")
        machine.requestCut()
        guard case .commit(let batch) = machine.next(now: .seconds(1)) else {
            Issue.record("no batch is due")
            return
        }
        machine.send("INCRBY", "c:a", "-10")
        let letter = DeadLetter(
            table: "counters", identity: batch.tables[0].merges[0].rows.identities[0],
            code: "check", message: "",
        )
        machine.committed(BatchOutcome(refused: [letter]), now: .seconds(1))
        machine.requestCut()
        guard case .read(let items) = machine.next(now: .seconds(2)) else {
            Issue.record("the row is not read")
            return
        }
        #expect(items.map(\.key) == [Array("c:a".utf8)])
    }

    @Test("a cut is never inside a transaction, and a link lost in it leaves nothing behind")
    func transactions() {
        var machine = Self.machine()
        machine.send("MULTI")
        machine.send("INCR", "c:a")
        machine.requestCut()
        var hasCut = false
        if case .commit = machine.next(now: .seconds(5)) { hasCut = true }
        #expect(!hasCut)
        #expect(machine.processed?.offset == 100)
        machine.linkLost()
        machine.linkContinued(history: nil)
        #expect(machine.streamOffset == 100)
        #expect(machine.dirtyCount == 0)
    }

    @Test("rows wait for their interval, however old the stored position is")
    func interval() {
        var policy = PipelinePolicy(interval: .seconds(60))
        policy.positionInterval = .seconds(1)
        var machine = Self.machine(policy)
        machine.send("INCR", "c:a")
        var hasCut = false
        if case .commit = machine.next(now: .seconds(59)) { hasCut = true }
        #expect(!hasCut)
        if case .commit = machine.next(now: .seconds(61)) { hasCut = true }
        #expect(hasCut)
    }

    @Test(
        "events are trusted only between two places at which the server publishes them",
        arguments: [true, false])
    func unreliableEvents(wasReliable: Bool) throws {
        var machine = Self.machine()
        let history = ReplicationID("h")
        machine.causesHeard(from: 100, history: history, isReliable: wasReliable)
        let command = CommandText(["DEL", "c:a"])
        let isTakenAtOnce = machine.receive(command)
        #expect(!isTakenAtOnce)
        guard case .askCauses = machine.next(now: .zero) else {
            Issue.record("the cause is not asked for")
            return
        }
        machine.causesAnswered([], offset: 200, history: history, isReliable: true)
        let isTaken = machine.receive(command)
        #expect(isTaken)
        machine.requestCut()
        guard case .commit(let batch) = machine.next(now: .seconds(1)) else {
            Issue.record("no batch is due")
            return
        }
        #expect(batch.tables[0].removes.count == (wasReliable ? 1 : 0))
        #expect(batch.tables[0].kept.map(\.state) == (wasReliable ? [] : [.doubtful]))
    }

    @Test("nothing is acknowledged in a new history before its baseline is committed")
    func newHistory() {
        var machine = Self.machine()
        #expect(machine.acknowledgement() == 100)
        machine.linkResynchronised(
            Position(history: ReplicationID("other"), offset: 5, database: 0))
        #expect(machine.acknowledgement() == 0)
    }
}

extension PipelineMachine {
    /// Receives a command of ten bytes.
    mutating func send(_ arguments: String...) {
        receive(CommandText(arguments))
        chunkReceived(now: .zero)
    }
}

import SluiceCore
import SluiceTesting
import Testing

/// Sequences that went wrong once.
@Suite("Sequences that went wrong once")
struct ReviewedCasesTests {
    private static let mapping = TableMapping(
        name: "tags",
        keys: KeyPattern(segments: [
            .literal(Array("s:".utf8)), .placeholder(Column(name: "id", type: .text)),
        ]), type: .set, member: Column(name: "tag", type: .text), removal: .always(.delete),
    )
    private static let key = Array("s:a".utf8)

    private static func machine(_ mappings: [TableMapping] = [mapping]) -> PipelineMachine {
        let checkpoint = Checkpoint(
            epoch: 1, sequence: 1,
            position: Position(history: ReplicationID("h"), offset: 100, database: 0),
            isBaselineDone: true,
        )
        var machine = PipelineMachine(
            mappings: mappings, policy: PipelinePolicy(),
            stored: StoredState(checkpoint: checkpoint), seed: 1,
        )
        machine.linkContinued(history: nil)
        return machine
    }

    private static func cut(_ machine: inout PipelineMachine) -> Batch? {
        machine.requestCut()
        guard case .commit(let batch) = machine.next(now: .seconds(1)) else { return nil }
        return batch
    }

    @Test("a dead letter ends when its key goes while the refusal is under way")
    func clearedWhileRefused() throws {
        var machine = Self.machine()
        machine.send("SADD", "s:a", "m")
        let first = Self.cut(&machine)
        #expect(first?.tables[0].puts.count == 1)
        machine.send("DEL", "s:a")
        let row = RowIdentity(key: Self.key, member: Array("m".utf8))
        let letter = DeadLetter(table: "tags", identity: row, code: "check", message: "")
        machine.committed(BatchOutcome(refused: [letter]), now: .seconds(1))
        let second = Self.cut(&machine)
        #expect(second?.revived.map(\.identity) == [row])
        #expect(second?.tables[0].clears.count == 1)
    }

    @Test("a baseline deletes no member that it does not find, whether it is remembered or not")
    func baselineKeeps() throws {
        var machine = Self.machine()
        machine.send("SADD", "s:a", "a", "b", "c")
        let first = Self.cut(&machine)
        #expect(first?.tables[0].puts.count == 3)
        machine.committed(BatchOutcome(), now: .seconds(1))
        let other = ReplicationID("other")
        machine.linkResynchronised(Position(history: other, offset: 5, database: 0))
        var removed = 0
        var now = Duration.seconds(2)
        var hasRead = false
        for _ in 0..<30 {
            now += .seconds(1)
            switch machine.next(now: now) {
            case .commit(let batch):
                for table in batch.tables { removed += table.removes.count + table.clears.count }
                machine.committed(BatchOutcome(), now: now)
            case .scan:
                machine.scanFinished(
                    [Self.key], cursor: [0x30], offset: 5, history: other, now: now)
            case .read:
                hasRead = true
                let page = ReadValue.page([Array("a".utf8), Array("b".utf8)], next: [0x30])
                machine.readFinished(
                    [ReadResult(value: page)], offset: 5, until: 5, history: other, now: now)
            case .sweep:
                machine.sweepFinished(
                    rows: 0, missing: [], outlived: [:], last: nil, offset: 5, history: other,
                    now: now)
            case .askCauses, .wait, .finish: break
            }
        }
        #expect(hasRead)
        let isRunning = machine.isBaselineRunning
        #expect(!isRunning)
        #expect(removed == 0)
    }

    @Test(
        "a member that leaves before a baseline's read of its key goes, although nothing remembers it"
    )
    func leavesBeforeRead() throws {
        var machine = Self.machine()
        let other = ReplicationID("other")
        machine.linkResynchronised(Position(history: other, offset: 5, database: 0))
        var now = Duration.seconds(2)
        var removed: [Bytes] = []
        for _ in 0..<30 {
            now += .seconds(1)
            switch machine.next(now: now) {
            case .commit(let batch):
                for table in batch.tables { removed += table.removes.identities.map(\.member) }
                machine.committed(BatchOutcome(), now: now)
            case .scan:
                machine.scanFinished(
                    [Self.key], cursor: [0x30], offset: 5, history: other, now: now)
            case .read:
                // The database has c too; Redis had it at 5, and has not at 1,000.
                let page = ReadValue.page([Array("a".utf8), Array("b".utf8)], next: [0x30])
                machine.readFinished(
                    [ReadResult(value: page)], offset: 1_000, until: 1_000, history: other,
                    now: now)
                machine.send("SREM", "s:a", "c")
                machine.requestCut()
            case .sweep, .askCauses, .wait, .finish: break
            }
        }
        let offset = machine.streamOffset
        #expect(offset < 1_000)
        #expect(removed == [Array("c".utf8)])
    }

    @Test("a baseline ends although there is always a batch on its way")
    func sweepsBesideCommits() {
        var machine = Self.machine()
        let other = ReplicationID("other")
        machine.linkResynchronised(Position(history: other, offset: 5, database: 0))
        var now = Duration.seconds(2)
        var number = 0
        var isFlying = false
        for _ in 0..<200 where machine.isBaselineRunning {
            now += .milliseconds(10)
            number += 1
            machine.send("SADD", "s:b", "m\(number)")
            machine.requestCut()
            let offset = machine.streamOffset
            var isIdle = false
            // The batch on its way ends only when another one is due.
            if isFlying { machine.committed(BatchOutcome(), now: now) }
            isFlying = false
            while !isIdle {
                switch machine.next(now: now) {
                case .commit: isFlying = true
                case .scan:
                    machine.scanFinished(
                        [], cursor: [0x30], offset: offset, history: other, now: now)
                case .sweep:
                    machine.sweepFinished(
                        rows: 0, missing: [], outlived: [:], last: nil, offset: offset,
                        history: other, now: now)
                default: isIdle = true
                }
                now += .milliseconds(3)
            }
        }
        let isRunning = machine.isBaselineRunning
        #expect(!isRunning)
    }

    @Test("a baseline does not read again what was read, so that nothing of it is in doubt")
    func readBeforeBaseline() throws {
        let scores = ModelTraffic.mappings.filter { $0.name == "scores" }
        func page(_ member: String) -> ReadValue {
            .page([Array(member.utf8), Array("1".utf8)], next: Array("0".utf8))
        }
        let driver = MachineDriver(scores, isNew: true)
        let stream = ["ZADD z:a 1 q", "DEL z:a", "ZADD z:a 1 n"]
        driver.scan(["z:a"]) {
            driver.send("ZPOPMIN z:a")
            _ = driver.cut()
            #expect(throws: Never.self) {
                try driver.read(page("m"), after: Array(stream.prefix(1)))
            }
        }
        _ = driver.cut()
        #expect(driver.nextRead(asksCut: false) == nil)
        driver.send(stream[0])
        driver.send(stream[1], .expired)
        driver.send(stream[2])
        let batch = try #require(driver.cut())
        #expect(batch.deadLetters.isEmpty)
    }
}

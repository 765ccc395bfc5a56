import CAllocations
import SluiceCore
import SluiceTesting
import Testing

@Suite("Hot path")
struct HotPathTests {
    static func pattern(_ prefix: String) -> KeyPattern {
        KeyPattern(segments: [
            .literal(Array(prefix.utf8)), .placeholder(Column(name: "id", type: .text)),
        ])
    }

    @Test(
        "a command on a row that is known allocates nothing",
        arguments: [
            ["INCRBY", "c:a", "5"], ["SET", "c:b", "17"], ["HSET", "s:a", "user", "12"],
            ["HINCRBY", "s:b", "user", "3"], ["PEXPIREAT", "s:a", "1900000000000"],
            ["ZADD", "z:a", "5", "ann"], ["ZINCRBY", "z:a", "3", "ann"], ["SADD", "m:a", "x"],
            ["DEL", "c:b"], ["PING"],
        ])
    func noAllocation(_ command: [String]) throws {
        let real = Column(name: "score", type: .real)
        let member = Column(name: "member", type: .text)
        let mappings = [
            TableMapping(
                name: "c", keys: Self.pattern("c:"), type: .string,
                columns: [Column(name: "value", type: .integer)]),
            TableMapping(
                name: "s", keys: Self.pattern("s:"), type: .hash, fields: [Array("user".utf8)],
                columns: [Column(name: "user", type: .integer)], deadline: "expires_at"),
            TableMapping(
                name: "z", keys: Self.pattern("z:"), type: .sortedSet, columns: [real],
                member: member),
            TableMapping(name: "m", keys: Self.pattern("m:"), type: .set, member: member),
        ]
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
        let text = CommandText(command)
        for _ in 0..<10 {
            machine.receive(text)
        }
        let before = allocations_of_this_thread()
        for _ in 0..<1_000 {
            machine.receive(text)
        }
        #expect(allocations_of_this_thread() - before == 0)
        let sum = (0..<100).map(String.init)
        #expect(allocations_of_this_thread() - before >= sum.count / 100, "nothing is counted")
    }
}

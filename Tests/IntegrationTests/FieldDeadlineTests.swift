import SluiceTesting
import Testing

/// Fields of hashes that have deadlines of their own (Redis 7.4, Valkey 9).
@Suite("Deadlines of fields")
struct FieldDeadlineTests {
    @Test(
        "a field that expires while others stay becomes null, or goes from the rest",
        arguments: DatabaseKind.allCases, [ServerKind.supported[1], ServerKind.supported[2]])
    func apart(kind: DatabaseKind, server: ServerKind) async throws {
        let bench = try await Bench(kind, tables: CauseTests.tables, server: server)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.send("HSET", "h:a", "user", "5", "x", "1", "y", "2")
        try bench.flush()
        let row = "SELECT \"user\", extra FROM sessions WHERE id = 'a'"
        #expect(try bench.query(row).first?.first == "5")
        try await client.send("HPEXPIRE", "h:a", "50", "FIELDS", "2", "user", "x")
        let isGone = await Eventually.holds {
            (try? await client.send("HLEN", "h:a")) == ["1"]
        }
        #expect(isGone)
        try bench.flush()
        let values = try #require(try bench.query(row).first)
        #expect(values[0] == nil)
        #expect(values[1]?.filter { $0 != " " } == "{\"y\":\"2\"}")
        try await bench.expectEqual()
    }
}

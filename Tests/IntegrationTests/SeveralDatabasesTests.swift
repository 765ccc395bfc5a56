import SluiceTesting
import Testing

/// Tables that take their keys from several databases of one Redis.
@Suite("Several Redis databases", .timeLimit(.minutes(3)))
struct SeveralDatabasesTests {
    private static let tables = """
        tables:
          counters:
            keys: "c:<id>"
            string: { value: integer }
            on_flush: delete
          counters_of_three:
            keys: "c:<id>"
            string: { value: integer }
            database: 3
            on_flush: delete
          tags_of_three:
            keys: "s:<name>"
            set: { member: tag }
            database: 3
            on_flush: delete
          scores_of_five:
            keys: "c:<id>"
            sorted_set: { member: player, score: points }
            database: 5
            on_flush: delete
        """

    @Test("each table follows the keys of its own database", arguments: ServerKind.supported)
    func severalDatabases(kind: ServerKind) async throws {
        let bench = try await Bench(.sqlite, tables: Self.tables, server: kind)
        let client = try await bench.redis.connect()
        for database in ["0", "3", "5", "6"] {
            try await client.send("SELECT", database)
            try await client.send("SET", "c:before", database)
            try await client.send("SADD", "s:before", "a", "b")
        }
        try await client.send("SELECT", "5")
        try await client.send("DEL", "c:before")
        try await client.send("ZADD", "c:before", "5", "p")
        try await bench.start()
        try await bench.expectEqual("\(kind): baseline")

        try await client.send("SELECT", "0")
        for command: [String] in [
            ["SET", "c:moved", "7"], ["MOVE", "c:moved", "3"], ["SET", "c:copied", "8"],
            ["COPY", "c:copied", "c:copy", "DB", "3"], ["INCR", "c:a"], ["APPEND", "c:a", "1"],
            ["MULTI"], ["INCRBY", "c:tx", "2"], ["SELECT", "3"], ["INCRBY", "c:tx", "3"],
            ["SADD", "s:tx", "x", "y"], ["SMOVE", "s:tx", "s:other", "x"], ["SELECT", "5"],
            ["ZADD", "c:tx", "1", "m"], ["ZADD", "c:tx", "GT", "3", "m"], ["EXEC"],
            ["SELECT", "6"], ["SET", "c:tx", "66"], ["SELECT", "3"], ["APPEND", "c:a", "33"],
            ["SET", "c:back", "5"], ["MOVE", "c:back", "0"],
        ] { try await client.send(command) }
        try bench.flush()
        try await bench.expectEqual("\(kind): after commands")
        #expect(try bench.query("SELECT value FROM counters WHERE id = 'tx'") == [["2"]])
        #expect(try bench.query("SELECT value FROM counters_of_three WHERE id = 'tx'") == [["3"]])
        #expect(try bench.query("SELECT points FROM scores_of_five WHERE id = 'tx'") == [["3.0"]])

        // What went by itself in one database is no deletion by the application in the other.
        try await client.send("SET", "c:tx", "9", "PX", "20")
        try await client.send("SELECT", "0")
        try await client.send("DEL", "c:tx")
        let isGone = await Eventually.holds {
            _ = try? await client.send("DBSIZE")
            return (try? bench.flush()) != nil
                && (try? bench.number("SELECT count(*) FROM counters WHERE id = 'tx'")) == 0
        }
        #expect(isGone, "\(kind): \(bench.sluice.log)")
        let kept = "SELECT value FROM counters_of_three WHERE id = 'tx'"
        #expect(try bench.query(kept) == [["9"]])
        try await client.send("SELECT", "3")
        try await client.send("SET", "c:tx", "10")

        try await client.send("SELECT", "5")
        try await client.send("FLUSHDB")
        try bench.flush()
        try await bench.expectEqual("\(kind): after FLUSHDB")
        #expect(try bench.number("SELECT count(*) FROM scores_of_five") == 0)
        #expect(try bench.number("SELECT count(*) FROM counters_of_three") ?? 0 > 3)
        let verified = try bench.sluice.command("verify")
        #expect(verified.code == 0, "\(verified.output)")

        // All of them at once, in a transaction that has gone on with another database by then.
        for command: [String] in [
            ["SELECT", "3"], ["MULTI"], ["INCR", "c:gone"], ["SELECT", "0"], ["FLUSHALL"],
            ["SET", "c:after", "1"], ["SELECT", "3"], ["SADD", "s:after", "m"], ["EXEC"],
        ] { try await client.send(command) }
        try bench.flush()
        try await bench.expectEqual("\(kind): after FLUSHALL")
        #expect(try bench.query("SELECT id FROM counters") == [["after"]])
        #expect(try bench.query("SELECT name, tag FROM tags_of_three") == [["after", "m"]])
        #expect(try bench.number("SELECT count(*) FROM counters_of_three") == 0)
    }
}

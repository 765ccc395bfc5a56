import Foundation
import SluicePostgres
import SluiceTesting
import Testing

/// Rows that the database refuses are kept with their values, and written when it takes them.
@Suite("Dead letters", .timeLimit(.minutes(4)))
struct DeadLetterTests {
    private static let tables = """
        dead_letters: { retry_after: 1s }
        tables:
          counters:
            keys: "c:<id>"
            string: { value: integer }
          sessions:
            keys: "s:<id>"
            hash: { n: integer, name: text }
          events:
            keys: "e:<topic>"
            stream: { id: event_id, fields: { n: integer } }
        """
    /// No retry but when asked.
    private static let patient = tables.replacing("retry_after: 1s", with: "retry_after: 1h")

    /// Has the database refuse rows of a table, until they are allowed again.
    private func refuse(_ bench: Bench, _ table: String, where condition: String) throws {
        if let postgres = bench.postgres {
            let sql = "ALTER TABLE \(table) ADD CONSTRAINT refused CHECK (NOT (\(condition)))"
            _ = try PostgresQuery(url: postgres.url).rows(sql + " NOT VALID")
            return
        }
        for event in ["INSERT", "UPDATE"] {
            let new = condition.replacing("value", with: "NEW.value").replacing(
                "n ", with: "NEW.n ")
            try bench.tamper(
                """
                CREATE TRIGGER refused_\(table)_\(event) BEFORE \(event) ON \(table) WHEN \(new)
                BEGIN SELECT RAISE(ABORT, 'refused by the test'); END
                """)
        }
    }

    private func allow(_ bench: Bench, _ table: String) throws {
        if let postgres = bench.postgres {
            let sql = "ALTER TABLE \(table) DROP CONSTRAINT refused"
            _ = try PostgresQuery(url: postgres.url).rows(sql)
            return
        }
        for event in ["INSERT", "UPDATE"] {
            try bench.tamper("DROP TRIGGER refused_\(table)_\(event)")
        }
    }

    private func letters(_ bench: Bench) throws -> [[String?]] {
        try bench.query(
            "SELECT table_name, operation, value FROM sluice_dead_letters ORDER BY table_name, key")
    }

    @Test("a value is kept whole, outlives its key, and is written by a retry")
    func wholeValue() async throws {
        for kind in DatabaseKind.allCases {
            let bench = try await Bench(kind, tables: Self.patient)
            try await bench.start()
            let client = try await bench.redis.connect()
            try await client.send("INCRBY", "c:a", "10")
            try await client.send("HSET", "s:a", "n", "1", "name", "é")
            try bench.flush()
            try refuse(bench, "counters", where: "value = 13")
            try refuse(bench, "events", where: "n = 7")
            try await client.send("INCRBY", "c:a", "3")
            try await client.send("SET", "c:b", "5")
            try await client.send("HSET", "s:a", "n", "word")
            try await client.send("XADD", "e:a", "1-1", "n", "7")
            try await client.send("XADD", "e:a", "1-2", "n", "8")
            try bench.flush()
            #expect(try bench.query("SELECT value FROM counters ORDER BY id") == [["10"], ["5"]])
            #expect(try bench.query("SELECT n FROM events") == [["8"]])
            // What was refused was an add and a patch; the rows are read to know the whole.
            let expected = [
                ["counters", "put", "{\"value\":\"13\"}"],
                ["events", "append", "{\"n\":\"7\"}"],
                ["sessions", "put", "{\"n\":\"word\",\"name\":\"é\"}"],
            ]
            let isWhole = await Eventually.holds { (try? letters(bench)) == expected }
            let found = try letters(bench)
            #expect(isWhole, "\(kind): \(found)")
            let shown = try bench.sluice.command(
                "dead-letters", "show", "--table", "counters", "--key", "c:a")
            #expect(shown.output.contains("{\"value\":\"13\"}"), "\(shown.output)")
            let exported = try bench.sluice.command("dead-letters", "export")
            #expect(exported.output.split(separator: "\n").count == 3, "\(exported.output)")

            try await client.send("PEXPIRE", "c:a", "20")
            let isGone = await Eventually.holds {
                (try? await client.send("EXISTS", "c:a")) == ["0"]
            }
            #expect(isGone)
            try bench.flush()
            #expect(try letters(bench).count == 3, "the letter outlives the key as the row does")

            var retried = try bench.sluice.command("dead-letters", "retry")
            #expect(retried.code == 65, "\(kind): \(retried.output)")
            try allow(bench, "counters")
            try allow(bench, "events")
            retried = try bench.sluice.command("dead-letters", "retry", "--json")
            #expect(retried.code == 65 && retried.output.contains("\"written\":2"))
            #expect(try bench.query("SELECT value FROM counters ORDER BY id") == [["13"], ["5"]])
            #expect(try bench.query("SELECT n FROM events ORDER BY event_id") == [["7"], ["8"]])
            #expect(try letters(bench).map { $0[0] } == ["sessions"])
            // The row goes on as one that was kept, and a good value ends the last letter.
            try await client.send("INCRBY", "c:a", "2")
            try await client.send("HSET", "s:a", "n", "2")
            try bench.flush()
            #expect(try bench.query("SELECT value FROM counters WHERE id = 'a'") == [["15"]])
            #expect(try bench.query("SELECT n, name FROM sessions") == [["2", "é"]])
            #expect(try letters(bench).isEmpty)
        }
    }

    @Test("a refused row is tried again by itself", arguments: DatabaseKind.allCases)
    func byItself(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind, tables: Self.tables)
        try await bench.start()
        try refuse(bench, "counters", where: "value = 13")
        let client = try await bench.redis.connect()
        try await client.send("SET", "c:a", "13")
        try bench.flush()
        #expect(try letters(bench).count == 1)
        try allow(bench, "counters")
        let isWritten = await Eventually.holds {
            (try? bench.query("SELECT value FROM counters")) == [["13"]]
                && (try? letters(bench).isEmpty) == true
        }
        #expect(isWritten, "\(bench.sluice.log)")
        try await bench.expectEqual()
    }

    @Test("a string over a mapped stream is set aside, and the stream's rows stay")
    func overStream() async throws {
        let bench = try await Bench(.sqlite, tables: Self.patient)
        try await bench.start()
        let client = try await bench.redis.connect()
        func expect(_ letters: [[String?]], _ comment: String) throws {
            try bench.flush()
            let found = try bench.query(
                "SELECT CAST(key AS TEXT), code FROM sluice_dead_letters ORDER BY key")
            #expect(found == letters, "\(comment)")
        }
        try await client.send("SET", "e:other", "x")
        try await client.send("XADD", "e:a", "1-1", "n", "7")
        try await client.send("SET", "e:a", "x")
        let two = [["e:a", "key.wrong_type"], ["e:other", "key.wrong_type"]]
        try expect(two, "both are strings")
        #expect(try bench.query("SELECT topic, n FROM events") == [["a", "7"]])
        try await client.send("APPEND", "e:a", "y")
        bench.sluice.stop()
        try await bench.start()
        try expect(two, "after a restart")
        try await client.send("DEL", "e:other")
        try expect([two[0]], "the string is gone")
        try await client.sendAll([["DEL", "e:a"], ["XADD", "e:a", "2-1", "n", "8"]])
        try expect([], "it is a stream again")
        #expect(try bench.query("SELECT n FROM events ORDER BY event_id") == [["7"], ["8"]])
        try await client.send("SET", "e:b", "x")
        try expect([["e:b", "key.wrong_type"]], "a string")
        try await client.sendAll([["XADD", "e:c", "3-1", "n", "9"], ["RENAME", "e:c", "e:b"]])
        try expect([], "a stream was renamed over it")
        for command in ["SET e:b x", "SET e:c x"] {
            try await client.send(CommandCase.words(command))
        }
        try expect([["e:b", "key.wrong_type"], ["e:c", "key.wrong_type"]], "strings again")
        try await client.send("FLUSHALL")
        try expect([], "all is gone")
        #expect(try bench.number("SELECT count(*) FROM events") == 4)
    }

    @Test("a key of a type that none of the tables maps which share it is set aside in the first")
    func shared() async throws {
        let bench = try await Bench(
            .sqlite,
            tables: """
                dead_letters: { retry_after: 1s }
                tables:
                  things: { keys: "x:<id>", hash: { n: integer } }
                  logs: { keys: "x:<id>", stream: { id: entry, fields: fields } }
                """)
        try await bench.start()
        let client = try await bench.redis.connect()
        for command in ["HSET x:a n 1", "XADD x:b 1-1 f v", "SET x:c 1"] {
            try await client.send(CommandCase.words(command))
        }
        func letters() throws -> [String] {
            try bench.flush()
            return try bench.query(
                "SELECT table_name || ' ' || CAST(key AS TEXT) || ': ' || message "
                    + "FROM sluice_dead_letters ORDER BY key"
            ).compactMap { $0[0] }
        }
        func mistake(_ key: String) -> String {
            "things \(key): expected a key of type hash, not string"
        }
        #expect(try letters() == [mistake("x:c")])
        for key in ["x:a", "x:b"] { try await client.send("SET", key, "v") }
        #expect(try letters() == ["x:a", "x:b", "x:c"].map(mistake))
        // Tried again meanwhile, they are what they were.
        try await Task.sleep(for: .seconds(2))
        #expect(try letters() == ["x:a", "x:b", "x:c"].map(mistake))
        try await client.sendAll([
            ["DEL", "x:a", "x:b", "x:c"], ["XADD", "x:a", "2-1", "f", "v"],
            ["HSET", "x:b", "n", "3"], ["HSET", "x:c", "n", "2"],
        ])
        let left = try letters()
        #expect(left == [], "\(bench.sluice.log)")
        #expect(
            try bench.query("SELECT id, n FROM things ORDER BY id") == [["b", "3"], ["c", "2"]])
        #expect(
            try bench.query("SELECT id, entry FROM logs ORDER BY id") == [
                ["a", "2-1"], ["b", "1-1"],
            ])
    }

    @Test("an entry that is too large is set aside under its own name, and the stream goes on")
    func largeEntry() async throws {
        let bench = try await Bench(.sqlite, tables: Self.patient)
        try await bench.start()
        let client = try await bench.redis.connect()
        let large = String(repeating: "x", count: 70 << 20)
        try await client.send("XADD", "e:a", "1-1", "n", large)
        try await client.send("XADD", "e:a", "1-2", "n", "2")
        try bench.flush()
        try await client.send("XADD", "e:a", "1-3", "n", large)
        try bench.flush()
        try await client.send("XADD", "e:a", "1-4", "n", "4")
        try await client.send("DEL", "e:a")
        try bench.flush()
        let letters = try bench.query(
            "SELECT CAST(member AS TEXT), operation, code FROM sluice_dead_letters ORDER BY member")
        #expect(
            letters == [
                ["1-1", "append", "value.too_large"], ["1-3", "append", "value.too_large"],
            ])
        #expect(
            try bench.query("SELECT event_id, n FROM events") == [["1-2", "2"], ["1-4", "4"]])
        // It is no row again by being tried.
        let retried = try bench.sluice.command("dead-letters", "retry")
        #expect(retried.code == 65, "\(retried.output)")
        try bench.flush()
        #expect(try bench.number("SELECT count(*) FROM sluice_dead_letters") == 2)
        #expect(try bench.number("SELECT count(*) FROM events") == 2)
        #expect(try bench.sluice.command("dead-letters", "discard", "--yes").code == 0)
        #expect(try bench.number("SELECT count(*) FROM sluice_dead_letters") == 0)
    }

    @Test("a key whose name does not fit makes one dead letter, which goes with the key")
    func names() async throws {
        let bench = try await Bench(
            .sqlite,
            tables: """
                tables:
                  counters: { keys: "c:<id:integer>", string: { value: integer } }
                  carts: { keys: "c:<id:integer>", hash: { user: integer } }
                  tags: { keys: "s:<id:integer>", set: { member: tag } }
                """)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.send("SET", "c:007", "1")
        try await client.send("SADD", "s:007", "a", "b")
        try bench.flush()
        let tables = "SELECT table_name FROM sluice_dead_letters ORDER BY table_name"
        #expect(try bench.query(tables) == [["counters"], ["tags"], ["tags"]])
        // A name that does not fit is of no row, whatever becomes of the key.
        try await client.send("DEL", "c:008")
        try await client.send("HSET", "c:007x", "user", "1")
        try await client.send("DEL", "c:007", "s:007", "c:007x")
        try bench.flush()
        #expect(try bench.query(tables).isEmpty)
        try await bench.expectEqual()
    }

    @Test("when most rows are refused, everything waits", arguments: DatabaseKind.allCases)
    func mostAreRefused(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind, tables: Self.patient)
        try await bench.start()
        try refuse(bench, "counters", where: "value > 0")
        let client = try await bench.redis.connect()
        func write() async throws {
            try await client.send("MULTI")
            for index in 1...300 { try await client.send("INCRBY", "c:\(index)", "1") }
            try await client.send("HSET", "s:a", "n", "1")
            try await client.send("EXEC")
        }
        try await write()
        func isHalted() async -> Bool {
            await Eventually.holds {
                let status = await bench.status()
                return status?["state"] as? String == "halted"
                    && (status?["reason"] as? String ?? "").contains("sink.refuses_most")
            }
        }
        #expect(await isHalted(), "\(bench.sluice.log)")
        #expect(try await client.send("WAIT", "1", "300") == ["0"], "nothing is acknowledged")
        #expect(try bench.number("SELECT count(*) FROM sessions") == 0)
        #expect(try letters(bench).isEmpty)
        try allow(bench, "counters")
        let resumed = try bench.sluice.command("resume")
        #expect(resumed.code == 0, "\(resumed.output)")
        try bench.flush()
        try await bench.expectEqual("\(kind): after the table was mended")

        try refuse(bench, "counters", where: "value > 1")
        try await write()
        #expect(await isHalted(), "\(bench.sluice.log)")
        #expect(try bench.sluice.command("resume", "--set-aside").code == 0)
        try bench.flush()
        #expect(try letters(bench).count == 300)
        #expect(try bench.query("SELECT n FROM sessions") == [["1"]])
        let wasNothing = try bench.sluice.command("resume")
        #expect(wasNothing.code == 75, "\(wasNothing.output)")

        // What is given up stays known: the next change is not put on top of what the database has.
        let discarded = try bench.sluice.command("dead-letters", "discard", "--yes")
        #expect(discarded.output.contains("300"), "\(discarded.output)")
        _ = bench.sluice.stop(SIGTERM)
        try allow(bench, "counters")
        try await bench.start()
        try await client.send("INCRBY", "c:7", "5")
        try bench.flush()
        #expect(try bench.query("SELECT value FROM counters WHERE id = '7'") == [["7"]])
        #expect(try bench.query("SELECT value FROM counters WHERE id = '8'") == [["1"]])
    }
}

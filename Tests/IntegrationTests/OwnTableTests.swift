import Foundation
import SluiceTesting
import Testing

/// Tables of a person's own, with constraints that refuse what Sluice writes.
@Suite("Tables of one's own", .timeLimit(.minutes(2)))
struct OwnTableTests {
    private static let tables = """
        dead_letters: { retry_after: 1h }
        tables:
          counters:
            keys: "c:<id>"
            string: { value: integer }
            on_flush: POLICY
        """

    @Test(
        "a row that a foreign key holds does not keep the others from being flushed",
        arguments: DatabaseKind.allCases, ["delete", "{ mark: gone_at }"])
    func flushed(database: DatabaseKind, policy: String) async throws {
        let marks = policy != "delete"
        let bench = try await Bench(
            database, tables: Self.tables.replacing("POLICY", with: policy))
        try await bench.start()
        let client = try await bench.redis.connect()
        for (id, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
            try await client.send("SET", "c:\(id)", value)
        }
        // More than are removed at a time.
        for start in stride(from: 0, to: 12_000, by: 1_000) {
            try await client.sendAll((start..<start + 1_000).map { ["SET", "c:b\($0)", "5"] })
        }
        try bench.flush()
        if marks {
            // No key holds a row that is only marked.
            try refuseMarks(bench)
        } else {
            try bench.tamper("CREATE TABLE children (id text NOT NULL REFERENCES counters (id))")
            try bench.tamper("INSERT INTO children VALUES ('b')")
        }
        // What comes after the flush stays.
        try await client.send("MULTI")
        try await client.send("FLUSHALL")
        try await client.send("SET", "c:c", "4")
        try await client.send("EXEC")
        try bench.flush()
        let condition = marks ? "gone_at IS NULL" : "1 = 1"
        let rows = "SELECT id, value FROM counters WHERE \(condition) ORDER BY id"
        #expect(try bench.query(rows) == [["b", "2"], ["c", "4"]])
        #expect(try bench.deadLetters().map { String(decoding: $0.key, as: UTF8.self) } == ["c:b"])
        try bench.tamper(marks ? allowMarks(bench) : "DELETE FROM children")
        #expect(try bench.sluice.command("dead-letters", "retry").code == 0)
        #expect(try bench.query(rows) == [["c", "4"]])
        #expect(try bench.deadLetters().isEmpty)
    }

    @Test("rows that refer to rows of their own table are all flushed but for those that are held")
    func chain() async throws {
        let bench = try await Bench(
            .sqlite, tables: Self.tables.replacing("POLICY", with: "delete"))
        try bench.tamper(
            "CREATE TABLE counters (id text PRIMARY KEY, value integer, parent text REFERENCES counters (id))"
        )
        try bench.tamper("CREATE TABLE children (id text NOT NULL REFERENCES counters (id))")
        try await bench.start()
        let client = try await bench.redis.connect()
        for id in 1...5 { try await client.send("SET", "c:\(id)", "\(id)") }
        try bench.flush()
        // Each holds the one before it, and another table holds the first.
        for id in 1...4 {
            try bench.tamper("UPDATE counters SET parent = '\(id)' WHERE id = '\(id + 1)'")
        }
        try bench.tamper("INSERT INTO children VALUES ('1')")
        try await client.send("FLUSHALL")
        try bench.flush()
        #expect(try bench.query("SELECT id FROM counters") == [["1"]])
        #expect(try bench.deadLetters().count == 1)
    }

    private func refuseMarks(_ bench: Bench) throws {
        if bench.postgres != nil {
            try bench.tamper(
                "ALTER TABLE counters ADD CONSTRAINT kept CHECK (value <> 2 OR gone_at IS NULL)")
        } else {
            try bench.tamper(
                """
                CREATE TRIGGER kept BEFORE UPDATE ON counters
                WHEN NEW.value = 2 AND NEW.gone_at IS NOT NULL
                BEGIN SELECT RAISE(ABORT, 'refused by the test'); END
                """)
        }
    }

    private func allowMarks(_ bench: Bench) -> String {
        bench.postgres != nil
            ? "ALTER TABLE counters DROP CONSTRAINT kept" : "DROP TRIGGER kept"
    }

    @Test(
        "what a deferred foreign key refuses is set aside alone", arguments: DatabaseKind.allCases)
    func deferred(database: DatabaseKind) async throws {
        let bench = try await Bench(
            database, tables: Self.tables.replacing("POLICY", with: "keep"))
        try bench.tamper("CREATE TABLE limits (value bigint PRIMARY KEY)")
        try bench.tamper("INSERT INTO limits VALUES (1), (2)")
        try bench.tamper(
            """
            CREATE TABLE counters (id text NOT NULL PRIMARY KEY,
                value bigint REFERENCES limits (value) DEFERRABLE INITIALLY DEFERRED)
            """)
        try await bench.start()
        let client = try await bench.redis.connect()
        for (id, value) in [("a", "1"), ("b", "7"), ("c", "2")] {
            try await client.send("SET", "c:\(id)", value)
        }
        try bench.flush()
        let rows = "SELECT id, value FROM counters ORDER BY id"
        #expect(try bench.query(rows) == [["a", "1"], ["c", "2"]])
        #expect(try bench.deadLetters().map { String(decoding: $0.key, as: UTF8.self) } == ["c:b"])
        let retried = try bench.sluice.command("dead-letters", "retry")
        #expect(retried.output.contains("1"), "\(retried.output)")
        #expect(try bench.query("SELECT attempts FROM sluice_dead_letters") == [["2"]])
        try bench.tamper("INSERT INTO limits VALUES (7)")
        #expect(try bench.sluice.command("dead-letters", "retry").code == 0)
        #expect(try bench.query(rows) == [["a", "1"], ["b", "7"], ["c", "2"]])
    }

    @Test("a row that refers to one that is written after it is taken beside one that is refused")
    func childFirst() async throws {
        let bench = try await Bench(
            .sqlite,
            tables: """
                dead_letters: { retry_after: 1h }
                tables:
                  visits:
                    keys: "v:<id>"
                    string: { value: integer }
                  pages:
                    keys: "p:<number:integer>"
                    string: { title: text }
                """)
        try bench.tamper("CREATE TABLE pages (number integer PRIMARY KEY, title text)")
        try bench.tamper(
            """
            CREATE TABLE visits (id text PRIMARY KEY,
                value integer REFERENCES pages (number) DEFERRABLE INITIALLY DEFERRED)
            """)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.send("MULTI")
        for (key, value) in [("v:a", "5"), ("v:b", "9"), ("p:5", "x")] {
            try await client.send("SET", key, value)
        }
        try await client.send("EXEC")
        try bench.flush()
        #expect(try bench.query("SELECT id, value FROM visits") == [["a", "5"]])
        #expect(try bench.deadLetters().map { String(decoding: $0.key, as: UTF8.self) } == ["v:b"])
    }

    @Test(
        "a constraint that rolls back all of a batch stops it, with what to do, and nothing twice")
    func rollsBack() async throws {
        let bench = try await Bench(.sqlite, tables: Self.tables.replacing("POLICY", with: "keep"))
        try bench.tamper(
            """
            CREATE TABLE counters (id text NOT NULL PRIMARY KEY,
                value integer)
            """)
        try bench.tamper(
            """
            CREATE TRIGGER refused BEFORE UPDATE ON counters WHEN NEW.value = 7
            BEGIN SELECT RAISE(ROLLBACK, 'refused by the test'); END
            """)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.send("INCRBY", "c:a", "1")
        try await client.send("INCRBY", "c:b", "6")
        try bench.flush()
        for key in ["c:a", "c:b", "c:a"] { try await client.send("INCR", key) }
        let isHalted = await Eventually.holds {
            await bench.status()?["state"] as? String == "halted"
        }
        #expect(isHalted)
        #expect(bench.sluice.log.contains("RAISE(ABORT"))
        let rows = "SELECT id, value FROM counters ORDER BY id"
        #expect(try bench.query(rows) == [["a", "1"], ["b", "6"]])
        try bench.tamper("DROP TRIGGER refused")
        #expect(try bench.sluice.command("resume").code == 0)
        try bench.flush()
        #expect(try bench.query(rows) == [["a", "3"], ["b", "7"]])
    }
}

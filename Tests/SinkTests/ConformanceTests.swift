import Foundation
import SluiceCore
import SluicePostgres
import SluiceSQL
import SluiceSQLite
import SluiceTesting
import Testing

@Suite("Sinks", .serialized)
struct ConformanceTests {
    @Test("SQLite keeps the contract")
    func sqlite() async throws {
        let folder = try TemporaryFolder()
        let path = folder.url.appending(path: "test.db").path
        let suite = SinkConformance(
            make: {
                SQLiteSink(
                    path: path, source: "test", mappings: SinkConformance.mappings,
                    createsTables: true)
            },
            query: { try SQLiteQuery(path: path).rows($0) })
        let failures = try await suite.failures()
        #expect(failures == [])
    }

    @Test("PostgreSQL keeps the contract, also in tables of one's own", arguments: [false, true])
    func postgres(hasJSON: Bool) async throws {
        let folder = try TemporaryFolder()
        let server = try await PostgresServer(in: folder.url)
        if hasJSON {
            let sink = PostgresSink(
                url: server.url, source: "other", mappings: SinkConformance.mappings,
                createsTables: true)
            _ = try await sink.open()
            await sink.close()
            for (table, column) in [("conform_hashes", "rest"), ("conform_events", "payload")] {
                _ = try PostgresQuery(url: server.url).rows(
                    "ALTER TABLE \(table) ALTER COLUMN \(column) TYPE json")
            }
        }
        let suite = SinkConformance(
            make: {
                PostgresSink(
                    url: server.url, source: "test", mappings: SinkConformance.mappings,
                    createsTables: true)
            },
            query: { try PostgresQuery(url: server.url).rows($0) })
        let failures = try await suite.failures()
        #expect(failures == [])
    }

    @Test("a statement that takes too long is given more time, until it has enough")
    func slowStatements() async throws {
        let folder = try TemporaryFolder()
        let server = try await PostgresServer(in: folder.url)
        let sink = PostgresSink(
            url: server.url, source: "test", mappings: SinkConformance.mappings,
            createsTables: true, statementLimit: .milliseconds(500))
        let stored = try await sink.open()
        let query = try PostgresQuery(url: server.url)
        _ = try query.rows(
            """
            CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN PERFORM pg_sleep(1.5); RETURN NEW; END'
            """)
        _ = try query.rows(
            "CREATE TRIGGER slow BEFORE UPDATE ON sluice_position EXECUTE FUNCTION slow()")
        var to = stored.checkpoint
        to.sequence += 1
        let batch = Batch(from: stored.checkpoint, to: to)
        var failures: [String] = []
        while failures.count < 5 {
            do throws(SinkError) {
                _ = try await sink.apply(batch)
                break
            } catch {
                #expect(error.response == .retry)
                failures.append("\(error.code) \(error.hint ?? "")")
            }
            // As an instance does between its attempts.
            try await sink.renew()
        }
        // 0.5 s and 1 s are too short.
        #expect(failures.count == 2)
        #expect(failures.first?.contains("the next attempt is given 1.0 seconds") == true)
        #expect(try query.rows("SELECT sequence FROM sluice_position") == [["\(to.sequence)"]])
        await sink.close()
    }

    @Test("a transaction may be idle for a minute at least, and for the lease", arguments: [1, 90])
    func idleLimit(lease: Int) async throws {
        let folder = try TemporaryFolder()
        let server = try await PostgresServer(in: folder.url)
        let sink = PostgresSink(
            url: server.url, source: "test", mappings: SinkConformance.mappings,
            createsTables: true, lease: .seconds(lease))
        let stored = try await sink.open()
        let query = try PostgresQuery(url: server.url)
        _ = try query.rows("CREATE TABLE limits (idle text)")
        _ = try query.rows(
            """
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO limits VALUES (current_setting('idle_in_transaction_session_timeout'));
                RETURN NEW;
            END $$
            """)
        _ = try query.rows(
            "CREATE TRIGGER note BEFORE UPDATE ON sluice_position EXECUTE FUNCTION note()")
        var to = stored.checkpoint
        to.sequence += 1
        _ = try await sink.apply(Batch(from: stored.checkpoint, to: to))
        #expect(try query.rows("SELECT idle FROM limits") == [[lease == 1 ? "1min" : "90s"]])
        await sink.close()
    }

    @Test("tables that an earlier version made are brought up to date")
    func olderTables() async throws {
        let folder = try TemporaryFolder()
        let server = try await PostgresServer(in: folder.url)
        func sink() -> PostgresSink {
            PostgresSink(
                url: server.url, source: "test", mappings: SinkConformance.mappings,
                createsTables: true)
        }
        let first = sink()
        _ = try await first.open()
        await first.close()
        let query = try PostgresQuery(url: server.url)
        for table in OwnTables.named {
            _ = try query.rows(
                """
                ALTER TABLE \(table) DROP CONSTRAINT \(table)_pkey, DROP COLUMN key_hash,
                    DROP COLUMN member_hash, ADD PRIMARY KEY (source, table_name, key, member)
                """)
        }
        _ = try query.rows(
            "INSERT INTO sluice_loose VALUES ('test', 'conform_counters', 'c:a', '', 7)")
        let second = sink()
        let stored = try await second.open()
        #expect(stored.loose.map(\.offset) == [7])
        let hash = try query.rows("SELECT key_hash = sha256(key) FROM sluice_loose")
        #expect(hash == [["t"]])
        await second.close()
    }

    @Test("without a server, opening fails with an error that says to try again")
    func unreachable() async throws {
        let sink = PostgresSink(
            url: "postgres://postgres@127.0.0.1:\(try FreePort.find())/postgres", source: "test",
            mappings: SinkConformance.mappings, createsTables: true)
        do throws(SinkError) {
            _ = try await sink.open()
            Issue.record("nobody listens there")
        } catch {
            #expect(error.response == .retry)
            #expect(error.message.contains("127.0.0.1"))
        }
        await sink.close()
    }
}

@Suite("The address of a PostgreSQL")
struct PostgresAddressTests {
    @Test(
        "a server on another machine is verified, unless the address says otherwise",
        arguments: [
            ("postgres://u:p%40@db.example.com/shop", true),
            ("postgres://db:5433/shop?application_name=a", true),
            ("postgresql://u@10.0.0.1", true), ("postgres://127.0.0.1,db/x", true),
            ("postgres://db/shop?sslmode=disable", false),
            ("postgres://db/shop?a=b&sslmode=require", false),
            ("postgres://u:p@127.0.0.1:5432/shop", false), ("postgres://localhost/shop", false),
            ("postgres:///shop", false), ("postgres://%2Frun%2Fpg/shop", false),
            ("postgres:///shop?host=/run/pg", false), ("postgres://u@[::1]:5432/shop", false),
        ])
    func verified(url: String, isVerified: Bool) {
        let address = PostgresAddress.verified(url, certificates: "/ca.crt")
        #expect(address.hasPrefix(url))
        #expect(address.contains("sslmode=verify-full&sslrootcert=/ca.crt") == isVerified)
        #expect(isVerified || address == url)
        #expect(address.count { $0 == "?" } <= 1)
        let known = url + (url.contains("?") ? "&" : "?") + "sslrootcert=/mine"
        #expect(!PostgresAddress.verified(known, certificates: "/ca.crt").contains("/ca.crt"))
    }
}

@Suite("What a database's codes mean")
struct CodeTests {
    enum Meaning { case refusal, retry, halt }

    @Test(
        "PostgreSQL's states: the row is refused, it passes, or a person must act",
        arguments: [
            ("22P02", Meaning.refusal), ("22003", .refusal), ("22021", .refusal),
            ("23502", .refusal), ("23503", .refusal), ("23505", .refusal), ("23514", .refusal),
            ("23P01", .refusal), ("44000", .refusal), ("54000", .refusal), ("P0001", .refusal),
            ("21000", .refusal), ("P0002", .refusal), ("P0004", .refusal), ("20000", .refusal),
            ("ZX001", .refusal), ("U0001", .refusal), ("38000", .refusal),
            ("08000", .retry), ("08006", .retry), ("25006", .retry), ("25P03", .retry),
            ("40001", .retry), ("40P01", .retry), ("53100", .retry), ("53200", .retry),
            ("53300", .retry), ("55P03", .retry), ("57014", .retry), ("57P01", .retry),
            ("57P03", .retry), ("58030", .retry),
            ("28P01", .halt), ("3D000", .halt), ("42501", .halt), ("42P01", .halt),
            ("42703", .halt), ("0A000", .halt), ("XX000", .halt),
        ])
    func postgres(state: String, meaning: Meaning) {
        let error = PostgresCodes.error(state: state, message: "m")
        #expect(PostgresCodes.isRefusal(error) == (meaning == .refusal))
        if meaning != .refusal { #expect(error.response == (meaning == .retry ? .retry : .halt)) }
    }

    @Test(
        "SQLite's codes: the row is refused, it passes, or a person must act",
        arguments: [
            (Int32(18), Meaning.refusal), (19, .refusal), (20, .refusal), (25, .refusal),
            (5, .retry), (6, .retry), (7, .retry), (9, .retry), (10, .retry), (13, .retry),
            (15, .retry),
            (1, .halt), (3, .halt), (8, .halt), (11, .halt), (14, .halt), (23, .halt), (26, .halt),
        ])
    func sqlite(code: Int32, meaning: Meaning) {
        #expect(SQLiteCodes.isRefusal(code, message: "") == (meaning == .refusal))
        if meaning != .refusal {
            #expect(SQLiteCodes.response(to: code) == (meaning == .retry ? .retry : .halt))
        }
        #expect(SQLiteCodes.isRefusal(1, message: "malformed JSON"))
    }
}

@Suite("Dead letters as rows")
struct RestoredLettersTests {
    private static let mapping = TableMapping(
        name: "sessions",
        keys: KeyPattern(segments: [
            .literal(Array("s:".utf8)), .placeholder(Column(name: "id", type: .text)),
        ]), type: .hash, fields: [Array("n".utf8), Array("b".utf8)],
        columns: [Column(name: "n", type: .real), Column(name: "b", type: .bytes)],
        rest: "rest", deadline: "expires_at", removal: .always(.mark("gone_at")),
    )

    private func letter(_ operation: DeadLetter.Operation, _ value: String?) -> DeadLetter {
        DeadLetter(
            table: "sessions", identity: RowIdentity(key: Array("s:a".utf8)),
            operation: operation, value: value.map { Array($0.utf8) }, code: "c", message: "m")
    }

    @Test("each is done as it was to be done, and no mark becomes a deletion")
    func operations() {
        let value = """
            {"n":"-inf","b":{"hex":"00ff"},"rest":null,"expires_at":"2026-01-31 23:59:58.250"}
            """
        let restored = RestoredLetters(
            [
                letter(.put, value), letter(.mark, nil), letter(.remove, nil),
                letter(.clear, nil), letter(.merge, "{\"n\":{\"add\":\"1\"}}"),
                letter(.put, "{\"n\":\"word\",\"b\":null,\"rest\":null,\"expires_at\":null}"),
                letter(.put, "no object"),
            ], mapping: Self.mapping)
        #expect(restored.puts.count == 1)
        #expect(restored.puts.values[0].reals == [-.infinity])
        #expect(restored.puts.values[1].blob == [0, 0xFF])
        #expect(restored.puts.values[3].integers == [1_769_903_998_250_000])
        #expect(restored.marks.count == 1)
        #expect(restored.removes.count == 1)
        #expect(restored.unread.map(\.operation) == [.clear, .merge])
        #expect(restored.refused.map(\.code) == ["value.type", "value.type"])
    }
}

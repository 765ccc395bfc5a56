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

    @Test("PostgreSQL keeps the contract")
    func postgres() async throws {
        let folder = try TemporaryFolder()
        let server = try await PostgresServer(in: folder.url)
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

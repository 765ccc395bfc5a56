import Foundation
import SluiceCore
import SluicePostgres
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

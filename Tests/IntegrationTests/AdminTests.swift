import Foundation
import SluiceTesting
import Testing

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// The admin listener with a token.
@Suite("Admin", .timeLimit(.minutes(1)))
struct AdminTests {
    @Test("who does not know the token is told nothing")
    func token() async throws {
        let folder = try TemporaryFolder("sluice-admin")
        let redis = try await RedisServer(in: folder.url)
        let yaml = """
            redis: { url: "redis://127.0.0.1:\(redis.port)/0" }
            database: { url: "sqlite:\(folder.url.appending(path: "test.db").path)" }

            """ + Bench.tables
        let token = "a-token-of-twenty-four-x"
        let sluice = try SluiceProcess(in: folder.url, configuration: yaml, token: token)
        try sluice.start()
        let isUp = await Eventually.holds { (try? sluice.command("flush").code) == 0 }
        #expect(isUp, "\(sluice.log)")
        for (header, status) in [
            (nil, 401), ("Bearer ", 401), ("Bearer a-token-of-twenty-four-y", 401),
            ("Bearer \(token)z", 401), ("Bearer \(token)", 200),
        ] {
            let url = try #require(URL(string: "http://127.0.0.1:\(sluice.adminPort)/status"))
            var request = URLRequest(url: url)
            if let header { request.setValue(header, forHTTPHeaderField: "Authorization") }
            let (body, response) = try await URLSession.shared.data(for: request)
            #expect((response as? HTTPURLResponse)?.statusCode == status, "\(header ?? "none")")
            let text = String(decoding: body, as: UTF8.self)
            #expect(text.contains("committedOffset") == (status == 200))
            #expect(!text.contains(token))
        }
        #expect(!sluice.log.contains(token))
        let path = folder.url.appending(path: "sluice.yaml")
        let changed = try String(contentsOf: path, encoding: .utf8)
            .replacing(token, with: "another-token-of-mine-xx")
        try changed.write(to: path, atomically: true, encoding: .utf8)
        let refused = try sluice.command("status")
        #expect(refused.code == 77 && refused.output.contains("another token"))
    }

    @Test("a command that waits for the instance leaves the processors to others")
    func waiting() async throws {
        let bench = try await Bench(.sqlite)
        try await bench.start()
        // It is there, and answers nobody until it goes on.
        bench.sluice.signal(SIGSTOP)
        let flush = try bench.sluice.begin("flush")
        // A question that needs no waiting is given up, so that what watches the instance learns of it.
        let status = try bench.sluice.command("status")
        #expect(status.code == 69 && status.output.contains("no instance answers"))
        #expect(flush.isRunning)
        let seconds = try #require(flush.processorSeconds)
        #expect(seconds < 0.5)
        bench.sluice.signal(SIGCONT)
        flush.wait(atMost: .seconds(30))
        #expect(flush.exitCode == 0)
    }
}

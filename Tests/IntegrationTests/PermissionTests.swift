import Foundation
import SluicePostgres
import SluiceTesting
import Testing

@Suite("Permissions", .serialized)
struct PermissionTests {
    // The statements of docs/permissions.md, as an administrator runs them.
    private static func grants() throws -> [String] {
        let page = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../docs/permissions.md")
        let text = try String(contentsOf: page, encoding: .utf8)
        let blocks = text.components(separatedBy: "```sql\n").dropFirst()
        return blocks.flatMap { $0.components(separatedBy: "```")[0].split(separator: "\n") }
            .map { line in
                String(line).replacing("'…'", with: "'secret'").replacing("shop", with: "postgres")
            }
    }

    @Test("the least role of PostgreSQL suffices", arguments: [true, false])
    func role(makesTables: Bool) async throws {
        let bench = try await Bench(.postgres, databaseOptions: "\n  lease: 2s")
        let grants = try Self.grants()
        try #require(grants.count == 4)
        if !makesTables {
            let applied = try bench.sluice.command("schema", "--apply")
            try #require(applied.code == 0, "\(applied.output)")
        }
        for grant in grants {
            let isNeeded = makesTables || !grant.contains("USAGE, CREATE")
            _ = try bench.query(
                isNeeded ? grant : grant.replacing("USAGE, CREATE", with: "USAGE"))
        }
        let sluice = try bench.another { text in
            text.replacing(
                "postgres://postgres@",
                with: "postgres://sluice:secret@"
            ).replacing(
                "  lease: 2s", with: "  lease: 2s\n  create_tables: \(makesTables)")
        }
        try sluice.start()
        let client = try await bench.redis.connect()
        for round in 1...2 {
            try await client.sendAll([
                ["INCR", "c:a"], ["HSET", "session:a", "user_id", "\(round)"],
                ["ZADD", "z:a", "\(round)", "m"], ["SADD", "s:a", "\(round)"],
                ["RPUSH", "l:a", "x"], ["XADD", "e:a", "*", "f", "v"],
                // What is refused, written by and by, kept, deleted.
                ["SET", "c:bad", round == 1 ? "word" : "5"], ["SET", "t:gone", "x"],
                ["DEL", "t:gone"],
            ])
            let isFlushed = await Eventually.holds(within: .seconds(30)) {
                (try? sluice.command("flush"))?.code == 0
            }
            #expect(isFlushed, "\(sluice.log)")
            let letters = try bench.number("SELECT count(*) FROM sluice_dead_letters")
            #expect(letters == (round == 1 ? 1 : 0), "\(sluice.log)")
            // Its lock is taken from it, too.
            if round == 1 {
                sluice.stop(SIGKILL)
                try sluice.start()
            }
        }
        try await bench.expectEqual("\(sluice.log)")
        sluice.stop(SIGTERM)
    }
}

import Foundation
import SluiceTesting
import Testing

/// A small disk of a test's own, in memory. Only root may make one.
final class SmallDisk: Sendable {
    let url: URL
    private let parent: TemporaryFolder

    init(megabytes: Int) throws {
        parent = try TemporaryFolder("sluice-disk")
        url = parent.url.appending(path: "disk")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        try run(["mount", "-t", "tmpfs", "-o", "size=\(megabytes)m", "tmpfs", url.path])
    }

    /// Takes all the room that is left.
    func fill() throws {
        try run(["sh", "-c", "cat /dev/zero > '\(url.path)/filler' 2>/dev/null || true"])
    }

    /// Gives the room back.
    func empty() throws {
        try FileManager.default.removeItem(at: url.appending(path: "filler"))
    }

    private func run(_ command: [String]) throws {
        let process = try ServerProcess(command, log: parent.url.appending(path: "disk.log"))
        process.wait()
        guard process.exitCode == 0 else { throw CocoaError(.fileWriteUnknown) }
    }

    deinit { try? run(["umount", "-l", url.path]) }
}

@Suite("Full disks", .serialized, .enabled(if: getuid() == 0))
struct DiskFullTests {
    @Test(
        "a database without room takes nothing, and all that waited when there is room again",
        arguments: DatabaseKind.allCases)
    func full(kind: DatabaseKind) async throws {
        let disk = try SmallDisk(megabytes: kind == .sqlite ? 16 : 160)
        let bench = try await Bench(kind, databaseFolder: disk.url)
        try await bench.start()
        let client = try await bench.redis.connect()
        func write(_ round: Int) async throws {
            try await client.sendAll(
                (0..<4_000).map {
                    ["HSET", "session:\(round)-\($0)", "user_id", "\($0)", "note", "n\($0)"]
                } + (0..<4_000).map { ["INCR", "c:\($0)"] })
        }
        try await write(0)
        try bench.flush()
        try disk.fill()
        var round = 0
        // What is preallocated takes some more.
        let isRefused = await Eventually.holds(within: .seconds(60)) {
            round += 1
            try? await write(round)
            return await bench.status()?["state"] as? String == "retrying"
        }
        let state = await bench.status()
        #expect(isRefused, "\(state ?? [:])")
        #expect(bench.sluice.isRunning)
        try disk.empty()
        // A server that can't write its log ends itself.
        if bench.postgres?.isRunning == false { try await bench.postgres?.start() }
        let isFlushed = await Eventually.holds(within: .seconds(60)) {
            (try? bench.sluice.command("flush"))?.code == 0
        }
        #expect(isFlushed, "\(bench.sluice.log.suffix(1_000))")
        try await bench.expectEqual()
    }
}

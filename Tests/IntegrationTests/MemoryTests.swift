import Foundation
import SluiceTesting
import Testing

/// `make memory` runs it with 5 million rows.
@Suite("Memory limit", .serialized, .timeLimit(.minutes(30)))
struct MemoryTests {
    private static let count =
        ProcessInfo.processInfo.environment["SLUICE_MEMORY_ROWS"].flatMap(Int.init) ?? 400_000

    /// What Redis does with what Sluice does not read yet.
    enum Output: String, CaseIterable, Sendable {
        case keeps, cuts
        var options: [String] {
            switch self {
            case .keeps: ["--client-output-buffer-limit", "replica 0 0 0"]
            case .cuts:
                ["--client-output-buffer-limit", "replica 2mb 2mb 0", "--repl-backlog-size", "1mb"]
            }
        }
    }

    @Test(
        "the limit holds while the database is away, and nothing is dropped",
        arguments: Output.allCases)
    func limit(output: Output) async throws {
        // Less than a quarter of what the rows need.
        let megabytes = max(16, Self.count / 20_000)
        let bench = try await Bench(
            .postgres, tables: "buffer:\n  max_memory: \(megabytes)MB\n" + Bench.tables,
            redisOptions: output.options)
        try await bench.start()
        let before = try #require(bench.sluice.residentMegabytes)
        bench.postgres?.stop(SIGQUIT)
        let client = try await bench.redis.connect()
        var peak = 0
        for first in stride(from: 0, to: Self.count, by: 2_000) {
            try await client.sendAll(
                (first..<first + 2_000).map { ["SET", "t:\($0)", "a value of some length, \($0)"] })
            peak = max(peak, bench.sluice.residentMegabytes ?? .max)
        }
        try await Task.sleep(for: .seconds(1))
        peak = max(peak, bench.sluice.residentMegabytes ?? .max)
        let status = try #require(await bench.status())
        let bytes = try #require(status["bufferBytes"] as? Int)
        // The other half is for the batch that waits.
        if output == .keeps {
            #expect(bytes > megabytes << 19, "the limit was not reached: \(bytes)")
        }
        #expect(bytes <= megabytes << 20)
        // What else the process needs does not grow with the rows: it is measured, with the room that
        // an allocator takes.
        let most = before + megabytes * 3 / 2 + 24
        #expect(peak <= most, "\(before) MB before, \(peak) MB at most, \(megabytes) MB allowed")
        try await bench.postgres?.start()
        let isFlushed = await Eventually.holds(within: .seconds(600)) {
            (try? bench.sluice.command("flush"))?.code == 0
        }
        peak = max(peak, bench.sluice.residentMegabytes ?? .max)
        print("\(output): \(before) MB before, \(peak) MB at most, \(megabytes) MB allowed")
        #expect(isFlushed, "\(bench.sluice.log)")
        let stored = try bench.number("SELECT count(*) FROM texts")
        #expect(stored == Self.count, "\(bench.sluice.log)")
        let right = try bench.number(
            "SELECT count(*) FROM texts WHERE value = 'a value of some length, ' || name")
        #expect(right == Self.count)
        let gaps = await bench.counter("resynchronisations")
        #expect(output == .cuts ? gaps > 0 : gaps == 0)
    }
}

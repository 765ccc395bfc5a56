import Foundation
import SluiceTesting
import Testing

@Suite("Lease", .serialized)
struct LeaseTests {
    @Test("a stopped instance loses its lease under traffic, and comes back as a standby")
    func stopped() async throws {
        let bench = try await Bench(.postgres, databaseOptions: "\n  lease: 2s")
        try await bench.start()
        let port = try #require(bench.postgres?.port)
        var active = bench.sluice
        var standby = try bench.throughProxies(redis: bench.redis.port, database: port)
        try standby.start()
        let isWaiting = await Eventually.holds { await Self.isStandby(standby, bench) }
        #expect(isWaiting, "\(standby.log)")
        let client = try await bench.redis.connect()
        let writer = Task {
            let other = try await bench.redis.connect()
            var count = 0
            while !Task.isCancelled {
                for index in 0..<20 { try await other.send("INCR", "c:\(index)") }
                try await other.send("XADD", "e:a", "*", "n", "\(count)")
                count += 1
            }
        }
        for round in 1...3 {
            active.signal(SIGSTOP)
            let stopped = ContinuousClock.now
            try await client.send("SET", "c:round", "\(round)")
            let isTaken = await Eventually.holds(within: .seconds(20)) {
                (try? bench.number("SELECT value FROM counters WHERE id = 'round'")) == round
            }
            let time = ContinuousClock.now - stopped
            // Twice the lease, and what a busy machine needs.
            #expect(isTaken && time < .seconds(6), "\(time) \(standby.log)")
            active.signal(SIGCONT)
            let isBack = await Eventually.holds(within: .seconds(20)) {
                await Self.isStandby(active, bench)
            }
            #expect(isBack && active.log.contains("another instance"), "\(active.log)")
            swap(&active, &standby)
        }
        writer.cancel()
        _ = await writer.result
        #expect(try active.command("flush").code == 0, "\(active.log)")
        try await bench.expectEqual()
        // One that ends lets the other go on at once.
        active.stop(SIGKILL)
        try await client.send("SET", "c:round", "9")
        let isTaken = await Eventually.holds(within: .seconds(20)) {
            (try? bench.number("SELECT value FROM counters WHERE id = 'round'")) == 9
        }
        #expect(isTaken, "\(standby.log)")
        try await bench.expectEqual()
        standby.stop(SIGTERM)
    }

    @Test("an instance that has nothing to write keeps its lease")
    func idle() async throws {
        let bench = try await Bench(.postgres, databaseOptions: "\n  lease: 1s")
        try await bench.start()
        let port = try #require(bench.postgres?.port)
        let standby = try bench.throughProxies(redis: bench.redis.port, database: port)
        try standby.start()
        try await Task.sleep(for: .seconds(4))
        #expect(await Self.isStandby(standby, bench), "\(standby.log)")
        #expect(try bench.number("SELECT epoch FROM sluice_position") == 1)
        standby.stop(SIGKILL)
    }

    private static func isStandby(_ sluice: SluiceProcess, _ bench: Bench) async -> Bool {
        let status = await bench.status(of: sluice)
        return status?["state"] as? String == "opening"
            && (status?["reason"] as? String)?.contains("another instance") == true
    }
}

import Foundation
import SluiceCore
import SluiceTesting
import SluiceVerify
import Testing

/// Everything fails at random while four uses write; in the end the database equals Redis.
///
/// `make chaos` runs it for longer; `SLUICE_SEED` repeats a schedule, though not its clock.
@Suite("Chaos", .serialized, .timeLimit(.minutes(30)))
struct ChaosTests {
    static let seconds =
        ProcessInfo.processInfo.environment["SLUICE_CHAOS_SECONDS"].flatMap(Int.init) ?? 20

    private enum Fault: String, CaseIterable {
        case cutRedis, cutRedisInside, slowRedis, stillRedis, bytewiseRedis, closedRedis
        case cutDatabase, cutDatabaseInside, slowDatabase, stillDatabase, closedDatabase
        case killSluice, freezeSluice, killRedis, freezeRedis, killDatabase, freezeDatabase
    }

    @Test("nothing is lost, nothing is twice", arguments: DatabaseKind.allCases)
    func chaos(kind: DatabaseKind) async throws {
        var random = SplitMix64(seed: CrashTests.seed)
        print("seed \(CrashTests.seed), \(Self.seconds) seconds, \(kind)")
        let bench = try await Bench(
            kind,
            redisOptions: [
                "--appendonly", "yes", "--appendfsync", "always", "--repl-backlog-size", "64mb",
            ])
        let proxies = (
            redis: try await FaultProxy(to: bench.redis.port),
            database: try await FaultProxy(to: bench.postgres?.port ?? bench.redis.port)
        )
        let sluice = try bench.throughProxies(
            redis: proxies.redis.port, database: proxies.database.port)
        try sluice.start()
        let faults = Fault.allCases.filter {
            kind == .postgres
                || !$0.rawValue.hasSuffix("Database")
                    && !$0.rawValue.hasSuffix("DatabaseInside")
        }
        let end = ContinuousClock.now + .seconds(Self.seconds)
        let written = Task {
            await withTaskGroup(of: Int.self) { group in
                for number in 0..<3 {
                    group.addTask { await Self.write(bench.redis, number, until: end) }
                }
                return await group.reduce(0, +)
            }
        }
        var schedule: [String: Int] = [:]
        while ContinuousClock.now < end {
            try await Self.pause(random.pick(20..<1_200))
            let fault = faults[random.pick(0..<faults.count)]
            schedule[fault.rawValue, default: 0] += 1
            try await Self.happen(fault, bench, sluice, proxies.redis, proxies.database, &random)
        }
        let writes = await written.value
        let isUp = await Eventually.holds(within: .seconds(90)) {
            let status = await bench.status(of: sluice)
            return status?["state"] as? String == "streaming"
                && status?["isBaselineDone"] as? Bool == true
        }
        #expect(isUp, "\(sluice.log.suffix(3_000))")
        // A cut that was asked for may still come; and of a commit whose answer was lost, Sluice waits a
        // minute to hear.
        var flushed = (code: Int32(0), output: "")
        let isFlushed = await Eventually.holds(within: .seconds(180)) {
            flushed = (try? sluice.command("flush")) ?? flushed
            return flushed.code == 0
        }
        let status = await bench.status(of: sluice) ?? [:]
        #expect(isFlushed, "\(flushed.output) \(status) \(sluice.log.suffix(3_000))")
        // Keys that went in a gap leave their rows, until a person says otherwise.
        let differences = try await bench.differences().filter { $0.expected != nil }
        #expect(
            differences.isEmpty, "seed \(CrashTests.seed), \(schedule) \(differences.prefix(5))")
        #expect(try bench.number("SELECT count(*) FROM sluice_dead_letters") == 0)
        let faultCount = schedule.values.reduce(0, +)
        print(
            "\(kind): \(writes) writes, \(faultCount) faults: \(schedule.sorted { $0.key < $1.key })"
        )
        sluice.stop(SIGTERM)
    }

    private static func pause(_ milliseconds: Int) async throws {
        try await ContinuousClock().sleep(for: .milliseconds(milliseconds))
    }

    /// Writes until the end, through whatever happens to Redis.
    private static func write(
        _ redis: RedisServer, _ number: Int, until end: ContinuousClock.Instant,
    ) async -> Int {
        var made = 0
        while ContinuousClock.now < end {
            let turn = min(end, ContinuousClock.now + .milliseconds(10))
            do {
                made += try await CrashTests.write(redis, client: number, until: turn)
            } catch {
                try? await pause(20)
            }
            // So that what is there to compare in the end does not grow with the time.
            try? await pause(max(30, Self.seconds))
        }
        return made
    }

    private static func happen(
        _ fault: Fault, _ bench: Bench, _ sluice: SluiceProcess, _ redis: FaultProxy,
        _ database: FaultProxy, _ random: inout SplitMix64,
    ) async throws {
        let length = random.pick(50..<1_500)
        func pass(_ proxy: FaultProxy, _ weather: FaultProxy.Weather) async throws {
            try await proxy.set(weather)
            try await pause(length)
            try await proxy.set(.fair)
        }
        switch fault {
        case .cutRedis: try await redis.cut(after: 0)
        case .cutRedisInside: try await redis.cut(after: random.pick(1..<200_000))
        case .slowRedis: try await pass(redis, .slow(random.pick(1..<100)))
        case .stillRedis: try await pass(redis, .still)
        case .bytewiseRedis: try await pass(redis, .bytewise)
        case .closedRedis: try await pass(redis, .closed)
        case .cutDatabase: try await database.cut(after: 0)
        case .cutDatabaseInside: try await database.cut(after: random.pick(1..<2_000))
        case .slowDatabase: try await pass(database, .slow(random.pick(1..<100)))
        case .stillDatabase: try await pass(database, .still)
        case .closedDatabase: try await pass(database, .closed)
        case .killSluice:
            sluice.stop(SIGKILL)
            try sluice.start()
        case .freezeSluice:
            sluice.signal(SIGSTOP)
            try await pause(length)
            sluice.signal(SIGCONT)
        case .killRedis:
            bench.redis.stop(SIGKILL)
            try await bench.redis.start()
        case .freezeRedis:
            kill(bench.redis.pid, SIGSTOP)
            try await pause(length)
            kill(bench.redis.pid, SIGCONT)
        case .killDatabase:
            bench.postgres?.stop(SIGQUIT)
            try await bench.postgres?.start()
        case .freezeDatabase:
            bench.postgres?.signal(SIGSTOP)
            try await pause(length)
            bench.postgres?.signal(SIGCONT)
        }
    }
}

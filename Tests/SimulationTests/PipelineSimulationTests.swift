import Foundation
import SluiceTesting
import Testing

/// Runs the pipeline machine in worlds that differ only in their seed.
///
/// `SWIFT_DETERMINISTIC_HASHING=1 SLUICE_SEED=17 swift test --filter PipelineSimulation` replays one of them.
@Suite("Pipeline simulation")
struct PipelineSimulationTests {
    static let seeds: [UInt64] = {
        let chosen = ProcessInfo.processInfo.environment["SLUICE_SEED"].flatMap(UInt64.init)
        let count = ProcessInfo.processInfo.environment["SLUICE_SEEDS"].flatMap(UInt64.init)
        return chosen.map { [$0] } ?? Array(0..<(count ?? 2_000))
    }()

    @Test("whatever fails, each commit equals Redis at its position", arguments: seeds)
    func promises(seed: UInt64) {
        var world = SimulatedWorld(seed: seed)
        world.live(steps: 1_500)
        #expect(world.failures.isEmpty, "SLUICE_SEED=\(seed) replays this")
    }

    @Test(
        "what outlived its key stays, whichever of stream, reads and commits comes first",
        arguments: seeds)
    func outlived(seed: UInt64) {
        var world = SimulatedWorld(seed: seed, isCalm: true)
        world.live(steps: 1_500)
        #expect(world.failures.isEmpty, "SLUICE_SEED=\(seed) replays this")
    }

    @Test("calm histories are compared with certainty, near and far behind Redis")
    func certainty() {
        var events: [String: Int] = [:]
        for seed in 0..<100 as Range<UInt64> {
            var world = SimulatedWorld(seed: seed, isCalm: true)
            world.live(steps: 1_500)
            events.merge(world.events) { $0 + $1 }
        }
        for event in [
            "certain comparison", "certain comparison far behind", "refusal", "full buffer",
        ] {
            #expect(events[event, default: 0] > 100, "\(event): \(events[event, default: 0])")
        }
    }

    @Test("the histories meet every fault, and comparisons happen")
    func coverage() {
        var events: [String: Int] = [:]
        for seed in 0..<100 as Range<UInt64> {
            var world = SimulatedWorld(seed: seed)
            world.live(steps: 1_500)
            events.merge(world.events) { $0 + $1 }
        }
        let expected = [
            "comparison", "continuation", "crash", "failover", "late commit", "read", "stop",
            "comparison at an offset", "full buffer", "restart of Redis", "resynchronisation",
            "unknown commit",
            "refusal", "retry",
        ]
        for event in expected { #expect(events[event, default: 0] > 0, "no \(event)") }
    }
}

import SluiceTesting
import Testing

/// Runs the pipeline machine in worlds whose server only names the keys that changed.
@Suite("Marked simulation")
struct MarkedSimulationTests {
    @Test(
        "whatever fails, every row equals Redis in the end, and none went that should stay",
        arguments: PipelineSimulationTests.seeds)
    func promises(seed: UInt64) {
        var world = MarkedWorld(seed: seed)
        // In short lives, many a key is never removed by the application.
        world.live(steps: seed.isMultiple(of: 2) ? 1_000 : 150, faults: true)
        #expect(world.failures.isEmpty, "SLUICE_SEED=\(seed) replays this")
    }

    @Test("the histories meet every fault")
    func coverage() {
        var events: [String: Int] = [:]
        for seed in 0..<20 as Range<UInt64> {
            var world = MarkedWorld(seed: seed)
            world.live(steps: 1_000, faults: true)
            events.merge(world.events) { $0 + $1 }
        }
        let expected = [
            "causes", "commit", "commit of marks", "connection", "crash", "lost connection", "read",
            "restart of Redis", "round",
        ]
        for event in expected { #expect(events[event, default: 0] > 0, "no \(event)") }
    }
}

import SluiceTesting
import Testing

/// Holds every total against all that was added to it.
@Suite("Totals simulation")
struct TotalsSimulationTests {
    @Test(
        "a total is all that was added, however often its key expires",
        arguments: PipelineSimulationTests.seeds)
    func totals(seed: UInt64) {
        for number in 0..<5 as Range<UInt64> {
            var world = TotalsWorld(seed: seed * 5 + number)
            world.live()
            #expect(world.failures.isEmpty, "SLUICE_SEED=\(seed) replays this")
        }
    }

    @Test("the histories meet every fault, and nearly all are compared")
    func coverage() {
        var events: [String: Int] = [:]
        for seed in 0..<2_000 as Range<UInt64> {
            var world = TotalsWorld(seed: seed)
            world.live()
            events.merge(world.events) { $0 + $1 }
        }
        for event in ["crash", "failover", "read", "refusal", "stop"] {
            #expect(events[event, default: 0] > 20, "\(event): \(events[event, default: 0])")
        }
        // Of these it is not known what their totals must be.
        #expect(events["lack", default: 0] < 40, "\(events)")
        #expect(events["vanished", default: 0] < 60, "\(events)")
        #expect(events["comparison", default: 0] > 1_940, "\(events)")
    }
}

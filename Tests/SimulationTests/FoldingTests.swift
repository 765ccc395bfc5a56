import SluiceCore
import SluiceTesting
import Testing

/// Holds the algebra of the row buffer against applying one command at a time.
@Suite("Folding")
struct FoldingTests {
    @Test(
        "one batch of all changes leaves what a batch for each leaves",
        arguments: 0..<300 as Range<UInt64>)
    func foldedEqualsOneByOne(seed: UInt64) {
        let folded = FoldingWorld.run(seed: seed, isCutEachTime: false)
        let single = FoldingWorld.run(seed: seed, isCutEachTime: true)
        #expect(folded.differences == [], "seed \(seed)")
        #expect(single.differences == [], "seed \(seed)")
        #expect(folded.commits < single.commits)
    }
}

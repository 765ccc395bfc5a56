import SluiceCore
import SluiceTesting
import Testing

/// Holds the algebra of the row buffer against applying one command at a time.
@Suite("Folding")
struct FoldingTests {
    @Test("one batch of all changes leaves what a batch for each leaves", arguments: 0..<300 as Range<UInt64>)
    func foldedEqualsOneByOne(seed: UInt64) {
        let folded = FoldingWorld.database(seed: seed, isCutEachTime: false)
        let single = FoldingWorld.database(seed: seed, isCutEachTime: true)
        #expect(folded.tables == single.tables, "seed \(seed)")
        #expect(folded.checkpoint.position == single.checkpoint.position)
        #expect(folded.checkpoint.sequence < single.checkpoint.sequence)
    }
}

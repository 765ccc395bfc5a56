import SluiceCore
import SluiceTesting
import Testing

/// Dead letters of rows whose keys are looked for, or went with their tables.
@Suite("Dead letters in the machine")
struct LetterTests {
    private static let scores = ModelTraffic.mappings.filter { $0.name == "scores" }
    private static let letter = DeadLetter(
        table: "scores", identity: RowIdentity(key: Array("z:a".utf8), member: [0x6d]),
        operation: .put, code: "refused", message: "")

    @Test(
        "a letter whose key a baseline does not find counts its table among those with rows without one",
        arguments: [false, true])
    func unseen(isWrittenBefore: Bool) throws {
        let driver = MachineDriver(Self.scores, letters: [Self.letter], isNew: true)
        driver.scan([])
        if isWrittenBefore { driver.revive(Self.letter) }
        let batch = try #require(driver.endBaseline())
        #expect(batch.to.strays == ["scores"])
    }

    @Test(
        "a letter whose row a baseline reads says nothing of its table", arguments: ["1", "word"])
    func seen(score: String) throws {
        let driver = MachineDriver(Self.scores, letters: [Self.letter], isNew: true)
        driver.scan(["z:a"])
        try driver.read(.page([[0x6d], Array(score.utf8)], next: Array("0".utf8)), after: [])
        let batch = try #require(driver.endBaseline())
        #expect(batch.to.strays.isEmpty)
    }

    @Test(
        "what was read of a row with a letter is written when a command before it has the key read")
    func readBefore() throws {
        let driver = MachineDriver(Self.scores, letters: [Self.letter], isNew: true)
        driver.scan(["z:a"])
        let page = ReadValue.page([[0x6d], [0x31]], next: Array("0".utf8))
        try driver.read(page, after: ["ZPOPMIN z:a", "ZADD z:a 1 m"])
        driver.send("ZPOPMIN z:a")
        let batch = try #require(driver.cut())
        let changes = try #require(batch.tables.first)
        #expect(changes.puts.identities == [Self.letter.identity])
    }

    @Test(
        "an answer that got lost says which rows of a flush were refused", arguments: [false, true])
    func lostAnswer(isWiped: Bool) {
        let checkpoint = Checkpoint(
            epoch: 1, sequence: 1, position: nil, isBaselineDone: true)
        var batch = Batch(from: checkpoint, to: checkpoint)
        var changes = TableChanges(table: 0, mapping: Self.scores[0])
        if isWiped { changes.wipe = .delete }
        batch.tables = [changes]
        let removed = DeadLetter(
            table: "scores", identity: Self.letter.identity, operation: .remove, code: "refused",
            message: "")
        let found = batch.refused(among: [Self.letter, removed], Self.scores)
        #expect(found == (isWiped ? [removed] : []))
    }
}

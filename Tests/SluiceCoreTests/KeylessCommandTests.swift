import SluiceCore
import SluiceTesting
import Testing

/// Commands of a server newer than Sluice, or of a module, that write and do not say which keys.
@Suite("Commands without keys")
struct KeylessCommandTests {
    private static let texts = ModelTraffic.mappings.filter { $0.name == "texts" }

    @Test("a write command that does not say its keys has every key read again")
    func write() throws {
        let driver = MachineDriver(Self.texts)
        driver.learn([CommandDescription(name: Array("mod.write".utf8), isWrite: true, keys: [])])
        driver.send("SET t:a 1")
        driver.send("MOD.WRITE everything")
        let batch = try #require(driver.cut())
        #expect(batch.tables.first?.puts.count == 1)
        #expect(!batch.to.isBaselineDone && driver.machine.counters.unsaid == 1)
    }

    @Test("one that does not write has none read")
    func noWrite() throws {
        let driver = MachineDriver(Self.texts)
        driver.learn([CommandDescription(name: Array("mod.read".utf8), isWrite: false, keys: [])])
        driver.send("SET t:a 1")
        driver.send("MOD.READ everything")
        let batch = try #require(driver.cut())
        #expect(batch.to.isBaselineDone && driver.machine.counters.unsaid == 0)
    }

    @Test("one that the server does not describe has each argument read that may be a key")
    func undescribed() throws {
        let driver = MachineDriver(Self.texts)
        driver.learn([])
        driver.send("MOD.NEW t:a other")
        let items = try #require(driver.nextRead())
        #expect(items.map(\.key) == [Array("t:a".utf8)])
    }
}

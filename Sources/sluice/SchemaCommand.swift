import ArgumentParser
import SluiceConfiguration
import SluiceCore
import SluiceSQL

struct SchemaCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "schema", abstract: "Print the tables' DDL, or make the tables.")

    @OptionGroup var options: CommonOptions
    @Flag(help: "Make the tables that are missing.") var apply = false

    @Flag(help: "Print a configuration that mirrors a whole database, and nothing else.")
    var mirror = false

    func run() async throws {
        if mirror {
            print(Mirror.text, terminator: "")
            return
        }
        let configuration = try options.load()
        guard apply else {
            print(Self.text(configuration))
            return
        }
        let sink = configuration.sink(createsTables: true)
        do throws(SinkError) {
            _ = try await sink.open()
            await sink.close()
            print("The tables are there.")
        } catch {
            Terminal.complain("\(error)")
            throw error.code.hasPrefix("schema.") ? Sysexits.data : Sysexits.unavailable
        }
    }

    static func text(_ configuration: Configuration) -> String {
        let dialect: Dialect
        switch configuration.database {
        case .sqlite: dialect = .sqlite
        case .postgres: dialect = .postgres
        }
        let mapped = configuration.tables.map { TableStatements($0, dialect).create }
        return (OwnTables.create(dialect) + mapped).map { $0 + ";" }.joined(separator: "\n\n")
    }
}

import ArgumentParser
import Foundation
import SluiceAdmin
import SluiceConfiguration
import SluiceCore
import SluicePostgres
import SluiceSQLite
import SluiceTesting

struct VerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Compare the database's rows with Redis.",
        discussion: """
            The application may go on writing: a row that differs is looked at again until it was \
            the same in Redis while everything was committed. Needs the running instance. What is \
            compared is held in memory: for large tables, take a --sample. With --repair, rows that \
            differ are read and written again, and compared once more; rows of which the key is gone \
            are left to `sluice reconcile`. Exits with 65 when rows differ.
            """)

    @OptionGroup var options: CommonOptions
    @Option(help: "Only this table; may be given more than once.") var table: [String] = []
    @Option(help: "Only this share of the keys, such as 5%; the same ones each time.")
    var sample: Percentage = Percentage(share: 1)
    @Flag(help: "Have rows that differ read from Redis and written again.") var repair = false
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let configuration = try options.load()
        let names = Set(configuration.tables.map(\.name))
        if let unknown = table.first(where: { !names.contains($0) }) {
            Terminal.complain(
                "the configuration has no table \(unknown)",
                hint: "tables: \(names.sorted().joined(separator: ", "))")
            throw Sysexits.configuration
        }
        let mappings = configuration.tables.filter { table.isEmpty || table.contains($0.name) }
        let client = try await connect(configuration)
        defer { client.close() }
        let admin = AdminClient(configuration: configuration)
        try await flush(admin)
        let comparison = try comparison(configuration, mappings)
        let live = LiveComparison(comparison, source: configuration.name) {
            try await flush(admin)
        }
        var outcome = try await live.run(client)
        if repair, !outcome.differences.isEmpty {
            let count = try await repair(outcome.differences, mappings, admin)
            if !json { print("\(count) rows are read and written again") }
            try await flush(admin)
            outcome = try await live.run(client)
        }
        try report(outcome)
    }

    private func connect(_ configuration: Configuration) async throws -> RedisClient {
        do {
            return try await RedisClient(to: configuration.endpoint())
        } catch {
            Terminal.complain("\(error)")
            throw Sysexits.unavailable
        }
    }

    private func comparison(
        _ configuration: Configuration, _ mappings: [TableMapping],
    ) throws -> RowComparison {
        switch configuration.database {
        case .sqlite(let path):
            let query = try SQLiteQuery(path: path)
            return RowComparison(mappings: mappings, isPostgres: false, sample: sample.share) {
                try query.rows($0)
            }
        case .postgres(let url):
            let query = try PostgresQuery(url: url)
            return RowComparison(mappings: mappings, isPostgres: true, sample: sample.share) {
                try query.rows($0)
            }
        }
    }

    private func flush(_ admin: AdminClient) async throws {
        guard try await admin.ask("POST", "/flush").status == 200 else {
            Terminal.complain(
                "the instance does not commit", hint: "`sluice status` says what it waits for")
            throw Sysexits.temporary
        }
    }

    private func repair(
        _ differences: [RowComparison.Difference], _ mappings: [TableMapping],
        _ admin: AdminClient,
    ) async throws -> Int {
        let names = differences.filter(\.hasKey).compactMap { row -> RowName? in
            guard let mapping = mappings.first(where: { $0.name == row.table }) else { return nil }
            let count = mapping.keys.columns.count
            let key = mapping.keys.key(from: row.row.prefix(count).map { Array($0.utf8) })
            let member = row.row.count > count ? row.row[count] : ""
            return RowName(table: row.table, key: Data(key), member: Data(member.utf8))
        }
        let body = try JSONEncoder().encode(names)
        guard try await admin.ask("POST", "/repair", body: body).status == 200 else {
            Terminal.complain("the instance does not take the rows")
            throw Sysexits.temporary
        }
        return names.count
    }

    private struct Report: Encodable {
        let compared: Int
        let differ: Int
        let kept: Int
        let setAside: Int
        let busy: Int
        let differences: [String]
    }

    private func report(_ outcome: LiveComparison.Outcome) throws {
        let lines = outcome.differences.map(\.description).sorted()
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
            let report = Report(
                compared: outcome.compared, differ: lines.count, kept: outcome.kept,
                setAside: outcome.setAside, busy: outcome.busy, differences: lines)
            print(String(decoding: try encoder.encode(report), as: UTF8.self))
        } else {
            for line in lines { print(line) }
            print(
                "\(outcome.compared) rows compared, \(lines.count) differ; \(outcome.kept) outlived "
                    + "their keys, \(outcome.setAside) are set aside, "
                    + "\(outcome.busy) keys changed each time")
        }
        if outcome.differences.contains(where: { !$0.hasKey }), !json {
            print("rows without a key are deleted by `sluice reconcile --delete-missing`")
        }
        if !lines.isEmpty { throw Sysexits.data }
    }
}

/// A share, written as `5%`.
struct Percentage: ExpressibleByArgument {
    let share: Double

    init(share: Double) { self.share = share }

    init?(argument: String) {
        let number = argument.hasSuffix("%") ? argument.dropLast() : argument[...]
        guard let percent = Double(number), percent > 0, percent <= 100 else { return nil }
        share = percent / 100
    }

    var defaultValueDescription: String { "100%" }
}

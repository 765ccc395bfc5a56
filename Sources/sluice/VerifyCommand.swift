import ArgumentParser
import Foundation
import SluiceAdmin
import SluiceConfiguration
import SluiceCore
import SluicePostgres
import SluiceRedis
import SluiceSQL
import SluiceSQLite
import SluiceVerify

struct VerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Compare the database's rows with Redis.",
        discussion: """
            The application may go on writing. Both sides are read page by page; a row that differs \
            is looked at again at one exact replication offset: the running instance, which this \
            needs, holds the stream for some milliseconds where Redis was read, and commits up to \
            there. A row differs if it does so three times. Rows whose offset can't be had, because \
            they had to be read from Redis themselves at each look, are counted and named, and the \
            command exits with 75. \
            With --repair, rows that differ are read and written again, and compared once more; rows \
            of which the key is gone are left to `sluice reconcile`. Exits with 65 when rows differ.
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
        let instance = AdminInstance(client: AdminClient(configuration: configuration))
        try await instance.flush()
        do {
            let verification = try verification(of: configuration)
            try report(try await verification.run(with: instance, repairs: repair))
        } catch let error as RedisError {
            Terminal.complain("\(error)")
            throw Sysexits.unavailable
        } catch let error as SinkError {
            Terminal.complain("\(error)")
            throw Sysexits.unavailable
        }
    }

    private func verification(of configuration: Configuration) throws -> Verification {
        let query: (String) throws -> [[String?]]
        let dialect: Dialect
        switch configuration.database {
        case .sqlite(let path):
            dialect = .sqlite
            query = try SQLiteQuery(path: path).rows
        case .postgres(let url):
            dialect = .postgres
            query = try PostgresQuery(url: url, isReadOnly: true).rows
        }
        return Verification(
            mappings: configuration.tables.filter { table.isEmpty || table.contains($0.name) },
            dialect: dialect, source: configuration.name, capture: configuration.redis.capture,
            endpoint: try configuration.endpoint(), sample: sample.share, query: query)
    }

    private struct Report: Encodable {
        let compared: Int
        let differ: Int
        let kept: Int
        let setAside: Int
        let open: Int
        let repaired: Int
        let differences: [String]
        let openRows: [String]
    }

    private func report(_ outcome: Outcome) throws {
        let lines = outcome.differences.map(\.description).sorted()
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
            let report = Report(
                compared: outcome.compared, differ: outcome.differ, kept: outcome.kept,
                setAside: outcome.setAside, open: outcome.openCount, repaired: outcome.repaired,
                differences: lines, openRows: outcome.open)
            print(String(decoding: try encoder.encode(report), as: UTF8.self))
        } else {
            for line in lines { print(line) }
            if outcome.differ > lines.count { print("… and \(outcome.differ - lines.count) more") }
            for name in outcome.open { print("\(name): not compared") }
            if repair { print("\(outcome.repaired) rows were read and written again") }
            print(
                "\(outcome.compared) rows compared, \(outcome.differ) differ; \(outcome.kept) "
                    + "outlived their keys, \(outcome.setAside) are set aside, "
                    + "\(outcome.openCount) could not be compared")
            if outcome.openCount > 0 {
                print(
                    "what could not be compared changed at each look, or the instance could not hold "
                        + "the stream: is another verify running, or a baseline?")
            }
            if outcome.differences.contains(where: { !$0.hasKey }) {
                print("rows without a key are deleted by `sluice reconcile --delete-missing`")
            }
        }
        if outcome.differ > 0 { throw Sysexits.data }
        if outcome.openCount > 0 { throw Sysexits.temporary }
    }
}

/// The running instance, asked through its admin listener.
struct AdminInstance: RunningInstance {
    let client: AdminClient

    func flush() async throws {
        guard try await client.ask("POST", "/flush").status == 200 else {
            Terminal.complain(
                "the instance does not commit", hint: "`sluice status` says what it waits for")
            throw Sysexits.temporary
        }
    }

    func hold() async throws -> HeldPlace? {
        let answer = try await client.ask("POST", "/hold")
        guard answer.status == 200 else { return nil }
        return try JSONDecoder().decode(HeldPlace.self, from: answer.body)
    }

    func advance(to place: HeldPlace) async throws -> Bool { try await ask("/advance", place) }

    func release(_ hold: HeldPlace) async throws -> Bool { try await ask("/release", hold) }

    private func ask(_ path: String, _ place: HeldPlace) async throws -> Bool {
        let body = try JSONEncoder().encode(place)
        return try await client.ask("POST", path, body: body).status == 200
    }

    func readAgain(_ rows: [RowIdentity], table: String) async throws {
        let names = rows.map {
            RowName(table: table, key: Data($0.key), member: Data($0.member))
        }
        let body = try JSONEncoder().encode(names)
        guard try await client.ask("POST", "/repair", body: body).status == 200 else {
            Terminal.complain("the instance does not take the rows")
            throw Sysexits.temporary
        }
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

import Foundation
import SluiceConfiguration
import SluiceCore
import SluicePostgres
import SluiceSQL
import SluiceSQLite
import SluiceTesting
import SluiceVerify
import Testing

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

enum DatabaseKind: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case sqlite, postgres
    var testDescription: String { rawValue }
}

/// A Redis, a database and a Sluice of a test's own.
final class Bench: @unchecked Sendable {
    // Unchecked: a test uses it from one task at a time, except for clients of Redis.
    /// Every removal deletes: what went while nobody listened would stay otherwise, in doubt.
    static let tables = """
        tables:
          counters:
            keys: "c:<id>"
            string: { value: integer }
            on_expire: delete
            on_evict: delete
          sessions:
            keys: "session:<id>"
            hash: { user_id: integer, last_seen: timestamp, cart: json }
            on_expire: delete
            on_evict: delete
            rest: extra
            expires_at: expires_at
          scores:
            keys: "z:<board>"
            sorted_set: { member: player, score: points }
            on_expire: delete
            on_evict: delete
          tags:
            keys: "s:<name>"
            set: { member: tag }
            on_expire: delete
            on_evict: delete
          queues:
            keys: "l:<name>"
            list: { items: json }
            on_expire: delete
            on_evict: delete
          texts:
            keys: "t:<name>"
            string: { value: text }
            on_expire: delete
            on_evict: delete
          events:
            keys: "e:<topic>"
            stream: { id: event_id, fields: payload }
        """

    let folder: TemporaryFolder
    let redis: RedisServer
    let postgres: PostgresServer?
    let sluice: SluiceProcess
    let configuration: Configuration
    private let kind: DatabaseKind
    private let path: String

    init(
        _ kind: DatabaseKind, tables: String = Bench.tables, redisOptions: [String] = [],
        interval: String = "100ms", databaseOptions: String = "",
        server: ServerKind = .standard, databaseFolder: URL? = nil,
        redisSettings: String = "", redis shared: RedisServer? = nil,
    ) async throws {
        self.kind = kind
        folder = try TemporaryFolder("sluice-test")
        if let shared {
            redis = shared
        } else {
            redis = try await RedisServer(
                in: folder.url, program: [server.program], options: redisOptions)
        }
        postgres =
            kind == .postgres ? try await PostgresServer(in: databaseFolder ?? folder.url) : nil
        path = (databaseFolder ?? folder.url).appending(path: "test.db").path
        let yaml = """
            redis:
              url: redis://127.0.0.1:\(redis.port)/0\(redisSettings)
            database:
              url: \(postgres?.url ?? "sqlite:\(path)")\(databaseOptions)
            sync:
              interval: \(interval)

            """ + tables
        configuration = try ConfigurationReader(environment: [:]).read(yaml, file: "test")
        sluice = try SluiceProcess(in: folder.url, configuration: yaml)
    }

    /// Starts Sluice, and waits until it has read what was there. It waits for a while until it also hears
    /// why keys go: those that went before are in doubt.
    func start() async throws {
        try sluice.start()
        let isReady = await Eventually.holds {
            await status()?["isBaselineDone"] as? Bool == true
        }
        try #require(isReady, "\(sluice.log)")
        _ = await hearsCauses(within: .seconds(5))
    }

    /// Whether Sluice hears why keys go, once it does or time is up; also true when nobody asks for it.
    func hearsCauses(within limit: Duration = .seconds(20)) async -> Bool {
        await Eventually.holds(within: limit) {
            await status().map { $0["hearsCauses"] as? Bool ?? true } ?? false
        }
    }

    /// A Sluice that reaches Redis and PostgreSQL through other ports.
    func throughProxies(redis port: Int, database: Int) throws -> SluiceProcess {
        try another { text in
            let text = text.replacing("127.0.0.1:\(redis.port)/", with: "127.0.0.1:\(port)/")
            guard let postgres else { return text }
            return text.replacing(
                "127.0.0.1:\(postgres.port)/", with: "127.0.0.1:\(database)/")
        }
    }

    /// A Sluice with the same configuration but for some change.
    func another(_ change: (String) -> String) throws -> SluiceProcess {
        let path = folder.url.appending(path: "sluice.yaml")
        let text = try String(contentsOf: path, encoding: .utf8)
        let other = folder.url.appending(path: "another")
        try FileManager.default.createDirectory(at: other, withIntermediateDirectories: true)
        return try SluiceProcess(
            in: other, configuration: change(text.components(separatedBy: "\nadmin:")[0]))
    }

    /// What the running instance says.
    func status(of other: SluiceProcess? = nil) async -> [String: Any]? {
        guard let result = try? (other ?? sluice).command("status", "--json"),
            let object = try? JSONSerialization.jsonObject(with: Data(result.output.utf8))
        else { return nil }
        return object as? [String: Any]
    }

    /// A number of the status' counters.
    func counter(_ name: String) async -> Int {
        guard let data = try? await ask("GET", "/status").body,
            let status = try? JSONSerialization.jsonObject(with: data) as? [String: Any],
            let counters = status["counters"] as? [String: Any]
        else { return -1 }
        return counters[name] as? Int ?? -1
    }

    func post(_ path: String, body: Data = Data()) async throws -> (status: Int, body: Data) {
        try await ask("POST", path, body: body)
    }

    /// Asks the admin listener.
    private func ask(
        _ method: String, _ path: String, body: Data = Data(),
    ) async throws -> (status: Int, body: Data) {
        guard let url = URL(string: "http://127.0.0.1:\(sluice.adminPort)\(path)") else {
            throw CocoaError(.fileNoSuchFile)
        }
        var request = URLRequest(url: url, timeoutInterval: 60)
        request.httpMethod = method
        request.httpBody = method == "GET" ? nil : body
        let (data, response) = try await URLSession.shared.data(for: request)
        return ((response as? HTTPURLResponse)?.statusCode ?? 0, data)
    }

    func flush() throws {
        let result = try sluice.command("flush")
        try #require(result.code == 0, "\(result.output) \(sluice.log)")
    }

    func query(_ sql: String) throws -> [[String?]] {
        try asking()(sql)
    }

    // What asks the database, over one connection.
    private func asking() throws -> (String) throws -> [[String?]] {
        if let postgres { return try PostgresQuery(url: postgres.url).rows }
        return try SQLiteQuery(path: path).rows
    }

    /// Changes the database behind Sluice's back.
    func tamper(_ sql: String) throws {
        guard let postgres else { return try SQLiteQuery.change(path: path, sql) }
        _ = try PostgresQuery(url: postgres.url).rows(sql)
    }

    func number(_ sql: String) throws -> Int? {
        try query(sql).first?.first?.flatMap { Int($0) }
    }

    /// Expects every row to equal Redis.
    func expectEqual(_ comment: String = "") async throws {
        let found = try await differences()
        #expect(found.isEmpty, "\(comment) \(found.prefix(5))")
    }

    /// The dead letters' tables and keys.
    func deadLetters() throws -> [(table: String, key: [UInt8])] {
        let digits = kind == .postgres ? "encode(key, 'hex')" : "hex(key)"
        return try query("SELECT table_name, \(digits) FROM sluice_dead_letters")
            .map { ($0[0] ?? "", Hex.bytes($0[1] ?? "")) }
    }

    /// How the database remembers that rows outlived their keys: members and states, by table and key.
    func kept() throws -> [String: [String]] {
        let key = kind == .postgres ? "encode(key, 'hex')" : "hex(key)"
        let member = kind == .postgres ? "encode(member, 'hex')" : "hex(member)"
        let rows = try query("SELECT table_name, \(key), \(member), state FROM sluice_kept")
        return Dictionary(
            rows.map { row in
                let names = row[1...2].map {
                    String(decoding: Hex.bytes($0 ?? ""), as: UTF8.self)
                }
                return ("\(row[0] ?? "") \(names[0])", ["\(names[1])=\(row[3] ?? "")"])
            }, uniquingKeysWith: +)
    }

    /// The rows that differ from Redis, but for those of keys that are set aside.
    func unexplained() async throws -> [Difference] {
        let letters = try deadLetters()
        return try await differences().filter { found in
            !letters.contains { $0.table == found.table && $0.key == found.identity.key }
        }
    }

    /// The rows that differ from Redis.
    func differences() async throws -> [Difference] {
        let verification = Verification(
            mappings: configuration.tables, dialect: kind == .postgres ? .postgres : .sqlite,
            source: configuration.name, endpoint: redis.endpoint(), query: try asking())
        return try await verification.run().differences
    }
}

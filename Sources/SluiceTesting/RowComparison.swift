internal import Foundation
public import SluiceCore
internal import SluiceSQL

/// Compares every mapped row of a database with Redis, while nobody writes.
///
/// It reads both with plain commands and plain SQL, and shares nothing with the way that the rows
/// went.
public struct RowComparison {
    /// What was found.
    public struct Outcome: Sendable {
        /// The rows that were compared.
        public var compared = 0
        /// What differs.
        public var differences: [Difference] = []
    }

    /// A row that differs.
    public struct Difference: Hashable, Sendable, CustomStringConvertible {
        /// The table.
        public let table: String
        /// The primary key's columns as texts.
        public let row: [String]
        /// What Redis has, or nil when it has no such row.
        public let expected: [String]?
        /// What the database has, or nil when it has no such row.
        public let found: [String]?
        /// Whether Redis has the row's key, though maybe not its member.
        public var hasKey = true

        /// The difference as a sentence.
        public var description: String {
            let name = "\(table) \(row.joined(separator: " "))"
            guard let expected else { return "\(name): extra, not in Redis" }
            guard let found else { return "\(name): missing, expected \(expected)" }
            return "\(name): different, expected \(expected), found \(found)"
        }
    }

    let mappings: [TableMapping]
    let isPostgres: Bool
    let query: (String) throws -> [[String?]]
    /// The share of the keys that is compared, from 0 to 1; the same ones each time.
    let sample: Double

    /// Creates a comparison.
    ///
    /// - Parameters:
    ///   - mappings: The tables.
    ///   - isPostgres: Whether the database is PostgreSQL; else it is SQLite.
    ///   - sample: The share of the keys that is compared, from 0 to 1; the same ones each time.
    ///   - query: Runs SQL.
    public init(
        mappings: [TableMapping], isPostgres: Bool, sample: Double = 1,
        query: @escaping (String) throws -> [[String?]],
    ) {
        self.mappings = mappings
        self.isPostgres = isPostgres
        self.query = query
        self.sample = sample
    }

    // Decided by the key alone, so that all rows of a key are in or out on both sides.
    private func isSampled(_ key: some Sequence<UInt8>) -> Bool {
        guard sample < 1 else { return true }
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in key { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return Double((hash ^ hash >> 32) % 1_000_000) < sample * 1_000_000
    }

    /// Compares.
    public func run(_ redis: RedisClient) async throws -> Outcome {
        var outcome = Outcome()
        for mapping in mappings {
            _ = try await redis.send("SELECT", "\(mapping.database)")
            let actual = try stored(mapping)
            let expected = try await expected(mapping, redis)
            for (row, values) in expected {
                outcome.compared += 1
                if actual[row] != values {
                    outcome.differences.append(
                        Difference(
                            table: mapping.name, row: row, expected: values, found: actual[row]))
                }
            }
            // Append-only tables keep what is gone from Redis.
            for row in actual.keys where expected[row] == nil && mapping.type != .stream {
                outcome.compared += 1
                outcome.differences.append(
                    Difference(table: mapping.name, row: row, expected: nil, found: actual[row]))
            }
        }
        return outcome
    }

    // MARK: The database

    /// The rows of a table, or of one key of it.
    func stored(_ mapping: TableMapping, keyParts: [String]? = nil) throws -> [[String]: [String]] {
        let key = mapping.primaryKey.map { Dialect.quote($0.name) }
        let values = mapping.values.map(expression)
        let sql =
            "SELECT \((key + values).joined(separator: ", ")) FROM "
            + Dialect.quote(mapping.name)
        var rows: [[String]: [String]] = [:]
        let conditions = zip(mapping.keys.columns, keyParts ?? []).map { column, part in
            let text = "'" + part.replacing("'", with: "''") + "'"
            return "\(Dialect.quote(column.name)) = \(column.type == .integer ? part : text)"
        }
        let filter = conditions.isEmpty ? "" : " WHERE " + conditions.joined(separator: " AND ")
        for row in try query(sql + filter) {
            let texts = row.map { $0 ?? "null" }
            let parts = texts.prefix(mapping.keys.columns.count).map { Array($0.utf8) }
            guard isSampled(mapping.keys.key(from: parts)) else { continue }
            let values = zip(texts.dropFirst(key.count), mapping.values).map(found)
            rows[Array(texts.prefix(key.count))] = values
        }
        return rows
    }

    private func expression(_ column: Column) -> String {
        let name = Dialect.quote(column.name)
        guard column.type == .timestamp else { return name }
        return isPostgres
            ? "(extract(epoch from \(name)) * 1000)::bigint"
            : "CAST(round((julianday(\(name)) - 2440587.5) * 86400000) AS INTEGER)"
    }

    // What the database answers, in the form in which it is compared.
    private func found(_ text: String, _ column: Column) -> String {
        guard isPostgres, column.type == .bytes, text.hasPrefix("\\x") else {
            return normal(text, column)
        }
        var digits = text.utf8.dropFirst(2)
        var bytes: [UInt8] = []
        while digits.count >= 2 {
            bytes.append(UInt8(String(decoding: digits.prefix(2), as: UTF8.self), radix: 16) ?? 0)
            digits = digits.dropFirst(2)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// What a text of Redis means in a column, in the form in which it is compared.
    func meant(_ text: String, _ column: Column) -> String {
        guard column.type == .timestamp else { return normal(text, column) }
        return Timestamp.microseconds(Array(text.utf8).span).map { "\($0 / 1_000)" } ?? text
    }

    private func normal(_ text: String, _ column: Column) -> String {
        guard text != "null" else { return text }
        switch column.type {
        case .real: return Double(text).map { "\($0)" } ?? text
        case .json: return Self.canonical(text)
        case .boolean:
            return ["1", "t", "true", "yes", "on"].contains(text.lowercased()) ? "1" : "0"
        case .decimal: return Decimal(string: text).map { "\($0)" } ?? text
        default: return text
        }
    }

    private static func canonical(_ text: String) -> String {
        guard
            let value = try? JSONSerialization.jsonObject(
                with: Data(text.utf8), options: [.fragmentsAllowed]),
            let data = try? JSONSerialization.data(
                withJSONObject: value, options: [.sortedKeys, .fragmentsAllowed])
        else { return text }
        return String(decoding: data, as: UTF8.self)
    }

    // MARK: Redis

    private func expected(
        _ mapping: TableMapping, _ redis: RedisClient,
    ) async throws -> [[String]: [String]] {
        var rows: [[String]: [String]] = [:]
        let glob = String(decoding: mapping.keys.glob, as: UTF8.self)
        var cursor = "0"
        repeat {
            var found = try await redis.send("SCAN", cursor, "MATCH", glob, "COUNT", "500")
            cursor = found.removeFirst() ?? "0"
            for key in found.compactMap({ $0 })
            where isSampled(key.utf8) && !Mark.isOwn(Array(key.utf8)) {
                rows.merge(try await expected(mapping, key: key, redis)) { $1 }
            }
        } while cursor != "0"
        return rows
    }

    /// The rows that a key of Redis means.
    func expected(
        _ mapping: TableMapping, key: String, _ redis: RedisClient,
    ) async throws -> [[String]: [String]] {
        let bytes = Array(key.utf8)
        guard let ranges = mapping.keys.split(bytes.span) else { return [:] }
        // A key of another type is another table's, or set aside.
        guard try await redis.send("TYPE", key) == [mapping.type.serverName] else { return [:] }
        let parts = ranges.map { String(decoding: bytes[$0], as: UTF8.self) }
        var rows: [[String]: [String]] = [:]
        for (member, values) in try await values(mapping, key, redis) {
            rows[parts + (member.map { [$0] } ?? [])] = values
        }
        return rows
    }

    private func values(
        _ mapping: TableMapping, _ key: String, _ redis: RedisClient,
    ) async throws -> [(String?, [String])] {
        func texts(_ command: String...) async throws -> [String] {
            try await redis.send(command).map { $0 ?? "null" }
        }
        switch mapping.type {
        case .string where !mapping.sources.isEmpty:
            let text = try await texts("GET", key)[0]
            let values = try await derived(mapping, key, text, redis)
            return [(nil, values + (try await deadline(mapping, key, redis)))]
        case .sortedSet where !mapping.sources.isEmpty:
            let pairs = try await texts("ZRANGE", key, "0", "-1", "WITHSCORES")
            var rows: [(String?, [String])] = []
            for index in stride(from: 0, to: pairs.count, by: 2) {
                rows.append((pairs[index], try await place(mapping, key, pairs, index, redis)))
            }
            return rows
        case .string:
            let value = meant(try await texts("GET", key)[0], mapping.values[0])
            return [(nil, [value] + (try await deadline(mapping, key, redis)))]
        case .hash:
            return [(nil, try await hash(mapping, key, redis))]
        case .sortedSet:
            let pairs = try await texts("ZRANGE", key, "0", "-1", "WITHSCORES")
            return stride(from: 0, to: pairs.count, by: 2).map { index in
                (pairs[index], [meant(pairs[index + 1], mapping.values[0])])
            }
        case .set: return try await texts("SMEMBERS", key).map { ($0, []) }
        case .list:
            let items = try await texts("LRANGE", key, "0", "-1")
            let data = try JSONSerialization.data(withJSONObject: items)
            let text = Self.canonical(String(decoding: data, as: UTF8.self))
            return [(nil, [text] + (try await deadline(mapping, key, redis)))]
        case .stream:
            return try await entries(mapping, key, redis)
        }
    }

    private func deadline(
        _ mapping: TableMapping, _ key: String, _ redis: RedisClient,
    ) async throws -> [String] {
        guard mapping.deadline != nil else { return [] }
        let time = try await redis.send("PEXPIRETIME", key)[0] ?? "-1"
        return [time == "-1" ? "null" : time]
    }

    private func hash(
        _ mapping: TableMapping, _ key: String, _ redis: RedisClient,
    ) async throws -> [String] {
        let pairs = try await redis.send("HGETALL", key).map { $0 ?? "" }
        var fields: [String: String] = [:]
        for index in stride(from: 0, to: pairs.count, by: 2) {
            fields[pairs[index]] = pairs[index + 1]
        }
        return columns(mapping, of: fields) + (try await deadline(mapping, key, redis))
    }

    // The fields that have columns, then the rest as one object.
    private func columns(_ mapping: TableMapping, of all: [String: String]) -> [String] {
        var fields = all
        var values = zip(mapping.fields, mapping.values).map { field, column -> String in
            guard let text = fields.removeValue(forKey: String(decoding: field, as: UTF8.self))
            else { return "null" }
            return meant(text, column)
        }
        if mapping.rest != nil {
            let data = try? JSONSerialization.data(withJSONObject: fields)
            values.append(
                fields.isEmpty
                    ? "null" : Self.canonical(String(decoding: data ?? Data(), as: UTF8.self)))
        }
        return values
    }

    // XRANGE nests, so its flat texts are taken apart with the help of XLEN and identifiers alone.
    private func entries(
        _ mapping: TableMapping, _ key: String, _ redis: RedisClient,
    ) async throws -> [(String?, [String])] {
        let script = """
            local out = {}
            for _, e in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
              out[#out + 1] = e[1]
              local o = {}
              for i = 1, #e[2], 2 do o[e[2][i]] = e[2][i + 1] end
              out[#out + 1] = cjson.encode(o)
            end
            return out
            """
        let texts = try await redis.send("EVAL_RO", script, "1", key).map { $0 ?? "null" }
        return stride(from: 0, to: texts.count, by: 2).map { index in
            let object = try? JSONSerialization.jsonObject(with: Data(texts[index + 1].utf8))
            return (texts[index], columns(mapping, of: object as? [String: String] ?? [:]))
        }
    }
}

extension RedisType {
    /// What TYPE says.
    fileprivate var serverName: String { self == .sortedSet ? "zset" : rawValue }
}

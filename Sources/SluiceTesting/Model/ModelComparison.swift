public import SluiceCore

/// Compares a ``ModelDatabase`` with what a ``ModelRedis`` held at one offset.
public struct ModelComparison {
    private let mappings: [TableMapping]

    /// Creates a comparison.
    public init(mappings: [TableMapping]) {
        self.mappings = mappings
    }

    /// What differs, as sentences; empty when the rows of the keys that exist equal Redis.
    ///
    /// - Parameters:
    ///   - isCertain: Whether nothing was missed, so that the cause of each removal is known.
    ///   - isFar: Whether what is read may be far ahead of the stream.
    ///   - hasVanished: Whether a key went before it could be read, so that a total is not known.
    public func differences(
        _ database: ModelDatabase, _ databases: [ModelRedis.Keyspace], loose: [LooseRow],
        strays: Set<String>, isCertain: Bool, isFar: Bool = false, hasVanished: Bool,
    ) -> [String] {
        mappings.indices.flatMap { table in
            differences(table, database, databases[mappings[table].database], loose, strays)
                + outlived(
                    table, database, databases[mappings[table].database], loose,
                    // Where a name is of one type and then of another before either is read, rows that
                    // outlived a key may go with what a command seems to replace.
                    isCertain && !(isFar && isShared(table)), hasVanished)
        } + totals(database, databases[0], loose, isCertain && !hasVanished)
            + sums(database, databases[0], loose, isCertain && !hasVanished)
            + mappings.indices.flatMap { table in
                scores(
                    table, database, databases[mappings[table].database], loose,
                    isCertain && !hasVanished && !strays.contains(mappings[table].name)
                        && !(isFar && isShared(table)))
            }
    }

    // What is added one by one, and what is added together, may be rounded differently.
    private func isScore(_ found: ModelDatabase.Stored?, _ expected: ModelDatabase.Stored?) -> Bool
    {
        guard case .real(let found)? = found, case .real(let expected)? = expected else {
            return false
        }
        return expected.isNaN || abs(found - expected) <= 1e-9
    }

    /// Scores that outlived their keys and came back by an add have what they had, and what was added.
    private func scores(
        _ table: Int, _ database: ModelDatabase, _ keys: ModelRedis.Keyspace, _ loose: [LooseRow],
        _ isCertain: Bool,
    ) -> [String] {
        let mapping = mappings[table]
        guard isCertain, mapping.isScore, mapping.removal.onExpire == .keep else { return [] }
        let free = Set(
            loose.filter { $0.table == mapping.name }.map(\.identity.key)
                + database.deadLetters.filter { $0.table == mapping.name }.map(\.identity.key)
        ).union(database.everRefused).union(database.everVanished)
        var found: [String] = []
        for (key, members) in keys.scoresBeyond {
            let bytes = Array(key.utf8)
            guard mapping.keys.matches(bytes.span), !free.contains(bytes),
                case .sortedSet(let scores)? = keys.values[key]
            else { continue }
            for (member, beyond) in members {
                guard let score = scores[member] else { continue }
                let row = RowIdentity(key: bytes, member: Array(member.utf8))
                let actual = database.tables[table][row]
                guard !isScore(actual?.first, .real(score + beyond)) else { continue }
                found.append(
                    "\(name(mapping, row)) outlived a key: \(actual ?? []), "
                        + "expected \(score) and \(beyond)")
            }
        }
        return found
    }

    private func isShared(_ table: Int) -> Bool {
        mappings.contains { $0.name != mappings[table].name && $0.keys == mappings[table].keys }
    }

    /// Rows that outlived their keys stay as they were while only keys of other types have the name.
    private func outlived(
        _ table: Int, _ database: ModelDatabase, _ keys: ModelRedis.Keyspace, _ loose: [LooseRow],
        _ isCertain: Bool, _ hasVanished: Bool,
    ) -> [String] {
        let mapping = mappings[table]
        guard isCertain, mapping.removal.onExpire == .keep, mapping.type != .stream else {
            return []
        }
        let free = Set(
            loose.filter { $0.table == mapping.name }.map(\.identity.key)
                + database.deadLetters.filter { $0.table == mapping.name }.map(\.identity.key))
        var gone = ModelRedis.Keyspace()
        let hasMembers = !mapping.isOneRowPerKey
        for (name, value) in hasMembers ? keys.left : keys.outlived
        where name.type == mapping.type {
            let key = Array(name.key.utf8)
            if free.contains(key) || database.everRefused.contains(key) { continue }
            // Nobody knows what it had then, and a key that came back ended the letter.
            if hasMembers, database.everVanished.contains(key) { continue }
            if mapping.isScore, hasVanished, keys.returned.contains(name) { continue }
            gone.values[name.key] = value
            gone.deadlines[name.key] = keys.outlivedDeadlines[name.key]
        }
        return rows(of: mapping, gone).compactMap { row, values in
            // Totals of counters are more, and what could not be written is nowhere.
            guard let values, !mapping.isCounter else { return nil }
            let actual = database.tables[table][row]
            var expected = values
            // A deadline that comes to an unknown row, whose key goes before it is read, is let be.
            if let deadline = mapping.deadline, let actual { expected[deadline] = actual[deadline] }
            guard actual != expected else { return nil }
            if isScore(actual?.first, values.first) { return nil }
            return "\(name(mapping, row)) outlived a key: \(actual ?? []), expected \(values)"
        }
    }

    /// Counters that outlived their keys have what they had, and what was added since.
    private func totals(
        _ database: ModelDatabase, _ keys: ModelRedis.Keyspace, _ loose: [LooseRow],
        _ isCertain: Bool,
    ) -> [String] {
        guard isCertain else { return [] }
        let table = 0
        let name = mappings[table].name
        let free = Set(
            loose.filter { $0.table == name }.map(\.identity)
                + database.deadLetters.filter { $0.table == name }.map(\.identity))
        return keys.totals.compactMap { key, total in
            let row = RowIdentity(key: Array(key.utf8))
            guard key.hasPrefix("c:"), !free.contains(row), !keys.unknownTotals.contains(key)
            else { return nil }
            var expected = total
            if case .string(let text)? = keys.values[key] { expected += Int(text) ?? 0 }
            let actual = database.tables[table][row]?[0]
            guard actual != .integer(Int64(expected)) else { return nil }
            return "\(key) outlived a key: \(actual ?? .null), expected \(expected)"
        }
    }

    /// Hashes that outlived their keys have what they had in `n`, and what was added since, unless they
    /// were read.
    private func sums(
        _ database: ModelDatabase, _ keys: ModelRedis.Keyspace, _ loose: [LooseRow],
        _ isCertain: Bool,
    ) -> [String] {
        guard isCertain, let table = mappings.firstIndex(where: { $0.name == "sessions" })
        else { return [] }
        let mapping = mappings[table]
        let free = Set(
            loose.filter { $0.table == mapping.name }.map(\.identity.key)
                + database.deadLetters.filter { $0.table == mapping.name }.map(\.identity.key)
        ).union(database.everRefused).union(database.everVanished)
        let expected = keys.sumsLeft.merging(keys.sums) { $1 }.filter {
            mapping.keys.matches(Array($0.key.utf8).span)
        }
        return expected.compactMap { key, sum in
            let row = RowIdentity(key: Array(key.utf8))
            guard !free.contains(row.key) else { return nil }
            guard let actual = database.tables[table][row] else {
                return "\(key) outlived a key: there is no row"
            }
            var expected: [ModelDatabase.Stored]
            if case .hash(var fields)? = keys.values[key], let number = Int(fields["n"] ?? "0") {
                fields["n"] = "\(sum + number)"
                let deadline = keys.deadlines[key].map { ModelDatabase.Stored.integer($0 * 1_000) }
                expected = hash(fields, deadline ?? .null) ?? []
            } else {
                expected = actual
                expected[0] = .integer(Int64(sum))
                if sum == 0, actual[0] == .null { return nil }
            }
            guard actual != expected else { return nil }
            return "\(key) outlived a key: \(actual), expected \(expected)"
        }
    }

    private func differences(
        _ table: Int, _ database: ModelDatabase, _ keys: ModelRedis.Keyspace, _ loose: [LooseRow],
        _ strays: Set<String>,
    ) -> [String] {
        let mapping = mappings[table]
        let expected = rows(of: mapping, keys)
        let free = Set(loose.filter { $0.table == mapping.name }.map(\.identity))
        let aside = Set(database.deadLetters.filter { $0.table == mapping.name }.map(\.identity))
        let refused = Dictionary(
            database.deadLetters.filter {
                $0.table == mapping.name && $0.code == ModelDatabase.refusal
            }.map { ($0.identity, $0) }, uniquingKeysWith: { $1 })
        func isFree(_ row: RowIdentity) -> Bool {
            free.contains(row) || free.contains(RowIdentity(key: row.key))
        }
        func isAside(_ row: RowIdentity) -> Bool {
            aside.contains(row) || aside.contains(RowIdentity(key: row.key))
        }
        var found: [String] = []
        for (row, values) in expected where !isFree(row) {
            guard let values else {
                if !isAside(row) { found.append("\(name(mapping, row)) should be set aside") }
                continue
            }
            if let letter = refused[row] {
                // What was refused is kept as it should be; one that has more than its key is not.
                let isWhole = letter.operation == .put && database.kept(table, row) != .back
                if isWhole, ModelDatabase.values(letter) != values {
                    found.append("\(name(mapping, row)) has a letter with another value")
                }
                continue
            }
            let actual = database.tables[table][row]
            let isMore = database.kept(table, row) == .back
            if actual != values, !isMore {
                found.append("\(name(mapping, row)) is \(actual ?? []), expected \(values)")
            }
        }
        for row in database.tables[table].keys where expected[row] == nil {
            // A key of another type, or a row that stays on purpose.
            if isFree(row) || isAside(row) || strays.contains(mapping.name) { continue }
            if mapping.type == .stream || database.kept(table, row) != nil { continue }
            found.append("\(name(mapping, row)) should be gone")
        }
        return found
    }

    private func name(_ mapping: TableMapping, _ row: RowIdentity) -> String {
        let key = String(decoding: row.key, as: UTF8.self)
        return "\(mapping.name) \(key) \(String(decoding: row.member, as: UTF8.self))"
    }

    /// The rows that Redis's keys mean; nil values where the value does not fit.
    private func rows(
        of mapping: TableMapping, _ keys: ModelRedis.Keyspace,
    ) -> [RowIdentity: [ModelDatabase.Stored]?] {
        var rows: [RowIdentity: [ModelDatabase.Stored]?] = [:]
        for (key, value) in keys.values {
            let bytes = Array(key.utf8)
            guard mapping.keys.matches(bytes.span) else { continue }
            let deadline: ModelDatabase.Stored =
                keys.deadlines[key].map { .integer($0 * 1_000) } ?? .null
            switch (value, mapping.type) {
            case (.string(let text), .string):
                rows[RowIdentity(key: bytes)] = .some(string(text, mapping, deadline))
            case (.hash(let fields), .hash):
                rows[RowIdentity(key: bytes)] = .some(hash(fields, deadline))
            case (.sortedSet(let scores), .sortedSet):
                for (member, score) in scores {
                    rows[RowIdentity(key: bytes, member: Array(member.utf8))] = [.real(score)]
                }
            case (.set(let members), .set):
                for member in members {
                    rows[RowIdentity(key: bytes, member: Array(member.utf8))] = .some([])
                }
            case (.stream(let entries), .stream):
                for (id, text) in entries {
                    rows[RowIdentity(key: bytes, member: Array(id.utf8))] = [
                        .text("{\"f\":\"\(text)\"}")
                    ]
                }
            case (_, .stream): break
            case _ where isMapped(bytes, as: value.type, in: mapping.database): break
            default: rows[RowIdentity(key: bytes)] = .some(nil)
            }
        }
        return rows
    }

    private func isMapped(_ key: Bytes, as type: RedisType, in database: Int) -> Bool {
        mappings.contains {
            $0.database == database && $0.type == type && $0.keys.matches(key.span)
        }
    }

    private func string(
        _ text: String, _ mapping: TableMapping, _ deadline: ModelDatabase.Stored,
    ) -> [ModelDatabase.Stored]? {
        if mapping.values[0].type == .text { return [.text(text)] }
        return Int64(text).map { [.integer($0), deadline] }
    }

    private func hash(
        _ fields: [String: String], _ deadline: ModelDatabase.Stored,
    ) -> [ModelDatabase.Stored]? {
        var number = ModelDatabase.Stored.null
        if let text = fields["n"] {
            guard let value = Int64(text) else { return nil }
            number = .integer(value)
        }
        let rest = fields.filter { $0.key != "n" && $0.key != "name" }
        return [
            number, fields["name"].map { .text($0) } ?? .null, rest.isEmpty ? .null : .object(rest),
            deadline,
        ]
    }
}

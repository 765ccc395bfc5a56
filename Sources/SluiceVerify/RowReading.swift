internal import RESPWire
package import SluiceCore

/// How a row is read from Redis, and what the answers mean.
///
/// It is worked out apart from the code that fills the tables, so that a mistake there is found here.
struct RowReading {
    /// The commands; the first one's answer is the value.
    let commands: [[Bytes]]
    private let mapping: TableMapping
    private let row: RowIdentity
    private let hasDeadline: Bool

    init(_ row: RowIdentity, _ mapping: TableMapping, hasExpireTime: Bool) {
        self.row = row
        self.mapping = mapping
        hasDeadline = mapping.deadline != nil && hasExpireTime
        let key = row.key
        var commands: [[Bytes]]
        switch mapping.type {
        case .string:
            commands = [RedisRows.command("GET", key)]
            // Alone, PFCOUNT writes what it counted into the key; of a union it writes nothing.
            if mapping.sources.contains(.count) {
                commands.append(RedisRows.command("PFCOUNT", key, key))
            }
        case .hash where mapping.rest != nil:
            commands = [RedisRows.command("HGETALL", key), RedisRows.command("HLEN", key)]
        case .hash:
            commands = [RedisRows.command("HLEN", key)]
            if !mapping.fields.isEmpty {
                commands.append([Array("HMGET".utf8), key] + mapping.fields)
            }
        case .list: commands = [RedisRows.command("LRANGE", key, "0", "-1")]
        case .set: commands = [RedisRows.command("SISMEMBER", key, row.member)]
        case .sortedSet:
            commands = [RedisRows.command("ZSCORE", key, row.member)]
            if !mapping.sources.isEmpty {
                commands.append(RedisRows.command("GEOPOS", key, row.member))
            }
        case .stream: commands = [RedisRows.command("XRANGE", key, row.member, row.member)]
        }
        if hasDeadline { commands.append(RedisRows.command("PEXPIRETIME", key)) }
        self.commands = commands
    }

    /// Whether a hash has fields past their deadlines, which read as gone before the stream says so.
    func hasExpiredFields(_ replies: [RESPValue]) -> Bool {
        guard mapping.type == .hash, mapping.rest != nil, let fields = replies[0].elements,
            let size = replies[1].integer
        else { return false }
        return size > fields.count / 2
    }

    /// The row's value columns as texts, in the form in which they are compared; nil when Redis has
    /// no such row.
    func values(_ replies: [RESPValue]) -> [String?]? {
        guard var values = content(replies) else { return nil }
        if mapping.deadline != nil {
            let time = hasDeadline ? replies.last?.integer ?? -1 : -1
            // Databases know no later years than what a deadline is bound to.
            values.append(time < 0 ? nil : "\(Timestamp.deadline(milliseconds: time) / 1_000)")
        }
        return values
    }

    private func content(_ replies: [RESPValue]) -> [String?]? {
        switch (mapping.type, replies[0]) {
        case (_, .error), (_, .null), (.set, .integer(0)), (.hash, .integer(0)): return nil
        case (.list, .array([])), (.hash, .array([])), (.stream, .array([])): return nil
        case (.string, let value):
            guard !mapping.sources.isEmpty else {
                return [Text.meant(value.bytes ?? [], mapping.values[0])]
            }
            return derived(value, replies)
        case (.hash, .array(let elements)): return columns(of: Self.fields(elements))
        case (.hash, _):
            let found = replies.count > 1 ? replies[1].elements ?? [] : []
            var fields: [Bytes: Bytes] = [:]
            for (field, value) in zip(mapping.fields, found) { fields[field] = value.bytes }
            return columns(of: fields)
        case (.list, let value):
            let items = (value.elements ?? []).map { Text.inJSON($0.bytes ?? []) }
            return [Text.of(JSONDocument.canonical(strings: items))]
        case (.set, _): return []
        case (.sortedSet, let score):
            guard !mapping.sources.isEmpty else {
                return [Text.meant(score.bytes ?? [], mapping.values[0])]
            }
            return place(score, replies[1])
        case (.stream, let entries):
            let parts = entries.elements?.first?.elements ?? []
            return columns(of: Self.fields(parts.count > 1 ? parts[1].elements ?? [] : []))
        }
    }

    // Of a field that comes twice, the last counts.
    private static func fields(_ elements: [RESPValue]) -> [Bytes: Bytes] {
        var fields: [Bytes: Bytes] = [:]
        for index in stride(from: 0, to: elements.count - 1, by: 2) {
            fields[elements[index].bytes ?? []] = elements[index + 1].bytes
        }
        return fields
    }

    // The fields that have columns, then the rest as one object.
    private func columns(of all: [Bytes: Bytes]) -> [String?] {
        var fields = all
        var values = zip(mapping.fields, mapping.values).map { field, column -> String? in
            fields.removeValue(forKey: field).map { Text.meant($0, column) }
        }
        if mapping.rest != nil {
            let pairs = fields.map { (Text.inJSON($0), Text.inJSON($1)) }
            let object = Dictionary(pairs, uniquingKeysWith: { $1 })
            values.append(
                object.isEmpty ? nil : Text.of(JSONDocument.canonical(strings: object)))
        }
        return values
    }

    // MARK: Parts of a value

    private func derived(_ content: RESPValue, _ replies: [RESPValue]) -> [String?] {
        let document = JSONDocument(content.bytes ?? [])
        return zip(mapping.sources, mapping.values).map { source, column in
            switch source {
            case .path(let path):
                document?.value(at: path, isJSON: column.type == .json).map {
                    Text.meant($0, column)
                }
            case .count: replies[1].text
            default: Text.meant(content.bytes ?? [], column)
            }
        }
    }

    // What columns take of a member of a sorted set.
    private func place(_ text: RESPValue, _ positions: RESPValue) -> [String?] {
        let place = positions.elements?.first?.elements
        let score = text.text.flatMap { Double($0) } ?? -1
        let exact = GeoPlace(score: score)
        // Redis says them with 17 decimals, which near zero are fewer digits than a double has.
        func degrees(_ value: RESPValue?, _ exact: Double?) -> String? {
            guard let said = value?.text.flatMap({ Double($0) }) else { return nil }
            guard let exact, abs(said - exact) < 1e-15 else { return "\(said)" }
            return "\(exact)"
        }
        return mapping.sources.map { source in
            switch source {
            case .longitude: degrees(place?.first, exact?.longitude)
            case .latitude: degrees(place?.last, exact?.latitude)
            default: "\(score)"
            }
        }
    }
}

/// Values as texts, in the form in which they are compared.
package enum Text {
    /// Bytes as a text: themselves where they are UTF-8, else their digits.
    static func of(_ bytes: Bytes) -> String {
        String(validating: bytes, as: UTF8.self) ?? digits(bytes)
    }

    /// Whether values are the same to the byte: texts that are the same to Unicode need not be.
    static func areSame(
        _ some: (some Collection<String?>)?, _ others: (some Collection<String?>)?,
    ) -> Bool {
        guard let some, let others else { return some == nil && others == nil }
        return some.count == others.count
            && zip(some, others).allSatisfy { one, other in
                guard let one, let other else { return one == nil && other == nil }
                return one.utf8.elementsEqual(other.utf8)
            }
    }

    /// Bytes as a string in a JSON document: those that can't stand there, or would be taken for
    /// digits, as their digits.
    package static func inJSON(_ bytes: Bytes) -> Bytes {
        let isText =
            !bytes.contains(0) && !bytes.starts(with: "\\x".utf8)
            && String(validating: bytes, as: UTF8.self) != nil
        return isText ? bytes : Bytes(digits(bytes).utf8)
    }

    static func digits(_ bytes: Bytes) -> String { "\\x" + Hex.text(bytes) }

    /// What a value of Redis means in a column.
    static func meant(_ bytes: Bytes, _ column: Column) -> String {
        if column.type == .bytes { return digits(bytes) }
        let text = of(bytes)
        guard column.type == .timestamp else { return normal(text, column) }
        guard let time = Timestamp.microseconds(bytes.span) else { return text }
        // Towards the past, before 1970 too.
        return "\((time - (time % 1_000 + 1_000) % 1_000) / 1_000)"
    }

    /// A text that stands for the same value as others of the column's type.
    static func normal(_ text: String, _ column: Column) -> String {
        switch column.type {
        // SQLite knows no negative zero.
        case .real: return Double(text).map { "\($0 + 0.0)" } ?? text
        case .json: return JSONDocument(Bytes(text.utf8)).map { of($0.canonical) } ?? text
        case .boolean:
            let isTrue = ["1", "t", "true", "yes", "on"].contains(text.lowercased())
            let isFalse = ["0", "f", "false", "no", "off"].contains(text.lowercased())
            return isTrue ? "1" : isFalse ? "0" : text
        case .decimal: return JSONDocument.number(text.utf8).map(of) ?? text
        default: return text
        }
    }
}

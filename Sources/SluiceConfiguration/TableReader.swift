internal import SluiceCore

/// Reads the mapping of one table.
struct TableReader {
    let name: String
    let section: SectionReader
    /// The Redis database of tables that name none.
    let database: Int

    func read() -> TableMapping? {
        let kinds = Self.kinds.filter { section.has($0.name) }
        for kind in Self.kinds { _ = section.node(kind.name) }
        let pattern = pattern()
        guard kinds.count == 1, let (kind, type) = kinds.first else {
            let types = kinds
            let all = Self.kinds.map(\.name).joined(separator: ", ")
            section.mistake(
                "", types.isEmpty ? "expected one of \(all)" : "expected only one of \(all)",
                hint: "for example `string: { views: integer }`")
            return nil
        }
        let database = section.integer("database", 0...65_535) ?? database
        let expires = section.text("expires_at")
        let rest = section.text("rest")
        let settled = section.text("settled_at")
        let removal = RemovalPolicies(
            onDelete: policy("on_delete", type, .delete), onExpire: policy("on_expire", type),
            onEvict: policy("on_evict", type), onFlush: policy("on_flush", type),
            onMissing: policy("on_missing", type),
        )
        guard let shape = shape(kind, type), let pattern else { return nil }
        if expires != nil, shape.member != nil {
            section.mistake(
                "expires_at", "belongs to tables with one row a key: string, hash, list")
        }
        if rest != nil, type != .hash, type != .stream || shape.rest != nil {
            section.mistake(
                "rest", "belongs to hash tables, and to streams with `fields: { name: type }`")
        }
        let mapping = TableMapping(
            name: name, keys: pattern, type: type, database: database, fields: shape.fields,
            sources: shape.sources,
            columns: shape.columns, member: shape.member,
            rest: shape.rest ?? (type == .hash || type == .stream ? rest : nil),
            deadline: shape.member == nil ? expires : nil, settledAt: settled, removal: removal,
        )
        checkNames(mapping)
        return mapping
    }

    /// The settings that say what a table maps, with the Redis type of its keys.
    private static let kinds: [(name: String, type: RedisType)] =
        RedisType.allCases.map { ($0.rawValue, $0) }
        + [("json", .string), ("hyperloglog", .string)]

    private struct Shape {
        var fields: [Bytes] = []
        var sources: [ValueSource] = []
        var rest: String?
        var columns: [Column] = []
        var member: Column?
    }

    private func shape(_ kind: String, _ type: RedisType) -> Shape? {
        if type == .stream { return stream(section.section(kind)) }
        guard let pairs = section.pairs(kind) else { return nil }
        guard pairs.count <= TableMapping.columnsMax - 2 else {
            section.mistake(kind, "a table has at most \(TableMapping.columnsMax) columns")
            return nil
        }
        switch kind {
        case "json": return document(pairs, kind)
        case "hyperloglog": return sketch(pairs, kind)
        case "hash":
            let columns = pairs.compactMap { column($0, in: kind) }
            return Shape(fields: pairs.map { Array($0.name.utf8) }, columns: columns)
        case "sorted_set": return sortedSet(pairs, kind)
        case "set": return members(pairs, kind)
        default: break
        }
        guard pairs.count == 1 else {
            section.mistake(kind, "expected one column, such as `{ value: text }`")
            return nil
        }
        guard let column = column(pairs[0], in: kind) else { return nil }
        if type == .list, column.type != .json {
            section.mistake(kind, "a list is one JSON array: expected `{ \(column.name): json }`")
        }
        return Shape(columns: [column])
    }

    private typealias Pair = (name: String, value: String, line: Int?)

    private func column(_ pair: Pair, in setting: String) -> Column? {
        guard let type = ColumnType(rawValue: pair.value) else {
            let all = ColumnType.allCases.map(\.rawValue).joined(separator: ", ")
            section.mistake(
                setting, "`\(pair.value)` is no type of a column", hint: "types: \(all)",
                line: pair.line)
            return nil
        }
        return Column(name: pair.name, type: type)
    }

    // `$.user.id: user_id`, or `$.user.id: user_id:integer`.
    private func document(_ pairs: [Pair], _ setting: String) -> Shape? {
        var shape = Shape()
        for pair in pairs {
            guard let path = JSONPath(pair.name) else {
                section.mistake(
                    setting, "`\(pair.name)` is no path into a document",
                    hint: "such as $.user.id or $.tags[0]; $ is the whole document", line: pair.line
                )
                continue
            }
            let parts = pair.value.split(separator: ":", maxSplits: 1).map(String.init)
            let standard = path.steps.isEmpty ? "json" : "text"
            let type = parts.count == 2 ? parts[1] : standard
            if let name = parts.first, let column = column((name, type, pair.line), in: setting) {
                shape.columns.append(column)
                shape.sources.append(.path(path))
            }
        }
        guard !pairs.isEmpty else {
            section.mistake(setting, "expected paths, such as `{ $.user.id: user_id:integer }`")
            return nil
        }
        return shape
    }

    private func sketch(_ pairs: [Pair], _ setting: String) -> Shape? {
        var shape = Shape()
        for pair in pairs {
            switch pair.name {
            case "count":
                shape.columns.append(Column(name: pair.value, type: .integer))
                shape.sources.append(.count)
            case "value":
                shape.columns.append(Column(name: pair.value, type: .bytes))
                shape.sources.append(.sketch)
            default: section.mistake(setting, "unknown: \(pair.name)", line: pair.line)
            }
        }
        guard !shape.columns.isEmpty else {
            section.mistake(
                setting, "expected `{ count: visitors, value: sketch }`, or one of them")
            return nil
        }
        return shape
    }

    // `member: player`, or `member: player:integer`.
    private func members(_ pairs: [Pair], _ setting: String) -> Shape? {
        var shape = Shape()
        for pair in pairs {
            if pair.name == "member" {
                shape.member = keyColumn(pair.value, setting, line: pair.line)
            } else {
                section.mistake(setting, "unknown: \(pair.name)", line: pair.line)
            }
        }
        guard shape.member != nil else {
            section.mistake(setting, "expected `{ member: player }`")
            return nil
        }
        return shape
    }

    private func sortedSet(_ pairs: [Pair], _ setting: String) -> Shape? {
        let sources = ["score": ValueSource.score, "longitude": .longitude, "latitude": .latitude]
        guard var shape = members(pairs.filter { sources[$0.name] == nil }, setting) else {
            return nil
        }
        for pair in pairs {
            guard let source = sources[pair.name] else { continue }
            shape.columns.append(Column(name: pair.value, type: .real))
            shape.sources.append(source)
        }
        guard !shape.columns.isEmpty else {
            section.mistake(
                setting,
                "expected `{ member: player, score: points }`, "
                    + "or of places `{ member: place, longitude: lon, latitude: lat }`")
            return nil
        }
        // A score alone is the value itself.
        if shape.sources == [.score] { shape.sources = [] }
        return shape
    }

    // `fields: payload`, or `fields: { kind: text }`.
    private func stream(_ inner: SectionReader) -> Shape? {
        var shape = Shape()
        shape.member = inner.text("id").map { Column(name: $0, type: .text) }
        if inner.isMapping("fields") {
            let pairs = inner.pairs("fields") ?? []
            shape.columns = pairs.compactMap { column($0, in: "stream") }
            shape.fields = pairs.map { Array($0.name.utf8) }
            if pairs.count > TableMapping.columnsMax - 2 {
                inner.mistake("fields", "a table has at most \(TableMapping.columnsMax) columns")
                return nil
            }
        } else {
            shape.rest = inner.text("fields")
        }
        inner.finish()
        guard shape.member != nil, inner.has("fields") else {
            section.mistake(
                "stream",
                "expected `{ id: event_id, fields: payload }`, "
                    + "or columns as in `fields: { kind: text }`")
            return nil
        }
        return shape
    }

    /// A column of the primary key, `name` or `name:type`.
    private func keyColumn(_ text: String, _ setting: String, line: Int? = nil) -> Column? {
        let parts = text.split(separator: ":", maxSplits: 1).map(String.init)
        guard let name = parts.first, !name.isEmpty else {
            section.mistake(setting, "a placeholder needs a name, such as <page>", line: line)
            return nil
        }
        guard parts.count == 2 else { return Column(name: name, type: .text) }
        guard let type = ColumnType(rawValue: parts[1]), [.text, .integer, .bytes].contains(type)
        else {
            section.mistake(
                setting, "a column of the key is text, integer or bytes, not `\(parts[1])`",
                line: line)
            return nil
        }
        return Column(name: name, type: type)
    }

    // MARK: Keys and policies

    private func pattern() -> KeyPattern? {
        guard let text = section.text("keys") else {
            if !section.has("keys") {
                section.mistake("keys", "is missing", hint: "for example keys: \"views:<page>\"")
            }
            return nil
        }
        var segments: [KeyPattern.Segment] = []
        var rest = text[...]
        while let open = rest.firstIndex(of: "<") {
            if open > rest.startIndex {
                segments.append(.literal(Array(rest[..<open].utf8)))
            } else if case .placeholder? = segments.last {
                section.mistake("keys", "two placeholders touch, so nobody knows where one ends")
                return nil
            }
            guard let close = rest[open...].firstIndex(of: ">") else {
                section.mistake("keys", "`<` without `>`")
                return nil
            }
            let inner = String(rest[rest.index(after: open)..<close])
            guard let column = keyColumn(inner, "keys") else { return nil }
            segments.append(.placeholder(column))
            rest = rest[rest.index(after: close)...]
        }
        if !rest.isEmpty { segments.append(.literal(Array(rest.utf8))) }
        let pattern = KeyPattern(segments: segments)
        guard !pattern.columns.isEmpty else {
            section.mistake(
                "keys", "expected at least one placeholder", hint: "for example \"views:<page>\"")
            return nil
        }
        return pattern
    }

    private func policy(
        _ setting: String, _ type: RedisType, _ standard: RemovalPolicy = .keep,
    ) -> RemovalPolicy {
        guard section.has(setting) else { return type == .stream ? .keep : standard }
        if section.isMapping(setting) {
            let marked = mark(setting)
            return type == .stream ? keepOnly(setting) : marked
        }
        switch section.text(setting) {
        case "delete" where type != .stream: return .delete
        case "keep": return .keep
        case "delete": return keepOnly(setting)
        default:
            section.mistake(setting, "expected delete, keep, or `{ mark: column }`")
            return .keep
        }
    }

    private func keepOnly(_ setting: String) -> RemovalPolicy {
        section.mistake(setting, "a stream's table is append-only: expected keep")
        return .keep
    }

    private func mark(_ setting: String) -> RemovalPolicy {
        let pairs = section.pairs(setting) ?? []
        guard pairs.count == 1, pairs[0].name == "mark", !pairs[0].value.isEmpty else {
            section.mistake(setting, "expected delete, keep, or `{ mark: column }`")
            return .keep
        }
        return .mark(pairs[0].value)
    }

    // One column says that a row's key is gone, whatever the cause.
    private func checkMarks(_ mapping: TableMapping) {
        let columns = Set(
            (mapping.removal.all + [mapping.removal.onMissing]).compactMap {
                if case .mark(let name) = $0 { name } else { nil }
            })
        if columns.count > 1 {
            section.mistake(
                "",
                "all marks of a table are one column, not "
                    + columns.sorted().joined(separator: " and "))
        }
    }

    private func checkNames(_ mapping: TableMapping) {
        var names = (mapping.primaryKey + mapping.values).map(\.name)
        if let column = mapping.markColumn { names.append(column) }
        checkMarks(mapping)
        if let column = mapping.settledAt { names.append(column) }
        let twice = Set(names.filter { name in names.count { $0 == name } > 1 })
        if !twice.isEmpty {
            section.mistake(
                "", "the column \(twice.sorted().joined(separator: ", ")) is named twice")
        }
        if mapping.name.hasPrefix("sluice_") {
            section.mistake("", "names that begin with sluice_ are Sluice's own")
        }
    }
}

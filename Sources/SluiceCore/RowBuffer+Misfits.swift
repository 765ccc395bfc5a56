extension RowBuffer {
    /// Notes that what a row became can't be written.
    mutating func setAside(_ table: Int, _ row: Int, _ misfit: Misfit) {
        leaveOpaque(table, row)
        tables[table].fill(row, with: .unchanged)
        tables[table].rows[row].shape = .untouched
        tables[table].rows[row].misfit = misfit
        touch(table, row)
    }

    /// Notes that what a key with many rows became can't be written: a row without a member says so.
    mutating func setAside(_ table: Int, key: Int, _ misfit: Misfit) {
        let none: Bytes = []
        let row = tables[table].member(none.span, of: key)
        tables[table].rows[row].misfit = misfit
        touch(table, row)
    }

    // MARK: Keys of another type

    /// Whether a key that is not of a table's type is another table's, or nobody's.
    ///
    /// The first table that maps the key is to say so when none maps its type. Types of modules are no
    /// mistake: nobody maps them.
    func isOthers(_ key: Int, of table: Int, _ result: ReadResult) -> Bool {
        let bytes = tables[table].keys[key].bytes
        let sharing = tables.indices.filter {
            tables[$0].mapping.database == tables[table].mapping.database
                && tables[$0].mapping.keys.matches(bytes.span)
        }
        guard sharing.count > 1 else { return false }
        guard let name = result.typeName,
            let type = RedisType.allCases.first(where: { $0.name.utf8.elementsEqual(name) })
        else { return true }
        return sharing.contains { tables[$0].mapping.type == type } || sharing.first != table
    }

    /// What a row of a key says that is of another type than its table maps.
    func wrongType(_ table: Int, _ result: ReadResult) -> Misfit {
        let found = result.typeName.map { ", not \(String(decoding: $0, as: UTF8.self))" } ?? ""
        return Misfit(
            .wrongType, "expected a key of type \(tables[table].mapping.type.rawValue)\(found)")
    }

    /// Notes that a stream's key is of another type. Its entries are no rows here: the row that says so
    /// ends when the key is a stream again, or gone.
    mutating func setMistyped(_ table: Int, key: Int, _ misfit: Misfit) {
        setAside(table, key: key, misfit)
        tables[table].rows[Int(tables[table].keys[key].first)].flags.insert(.mistyped)
    }

    /// A stream's key is of no other type any more.
    mutating func endMistyped(_ table: Int, key: Int) {
        let row = Int(tables[table].keys[key].first)
        guard row >= 0, tables[table].rows[row].flags.contains(.mistyped) else { return }
        tables[table].rows[row].flags.remove(.mistyped)
        tables[table].rows[row].misfit = nil
        touch(table, row)
    }

    /// A stream's key went, or is a stream again, at an offset.
    mutating func endMistyped(_ table: Int, key: Int, at offset: Int64) {
        guard offset > tables[table].keys[key].readOffset else { return }
        endMistyped(table, key: key)
    }
}

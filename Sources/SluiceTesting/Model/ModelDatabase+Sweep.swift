import SluiceCore

extension ModelDatabase {
    /// A page of rows, those of them that a server does not have, and which outlived their keys.
    func sweep(
        _ table: Int, _ after: RowIdentity?, _ limit: Int, _ redis: ModelRedis,
    ) -> (rows: [RowIdentity], missing: [RowIdentity], outlived: [RowIdentity: Kept]) {
        func precedes(_ left: RowIdentity, _ right: RowIdentity) -> Bool {
            left.key == right.key
                ? left.member.lexicographicallyPrecedes(right.member)
                : left.key.lexicographicallyPrecedes(right.key)
        }
        let mapping = mappings[table]
        let rows = tables[table].keys.sorted(by: precedes)
            .filter { row in after.map { precedes($0, row) } ?? true }.prefix(limit)
        let missing = rows.filter { row in
            let target: ReadItem.Target = mapping.isOneRowPerKey ? .key : .member(row.member)
            let item = ReadItem(type: mapping.type, key: row.key, target: target)
            let value = redis.read(item, database: mapping.database).value
            return value == .missing || value == .wrongType
        }
        let outlived = missing.compactMap { row in kept(table, row).map { (row, $0) } }
        return (Array(rows), missing, Dictionary(uniqueKeysWithValues: outlived))
    }
}

extension Batch {
    /// Puts the rows in the order of their primary key, in which databases write them fastest:
    /// PostgreSQL 1.4 times as fast as in the order of the hash.
    ///
    /// It takes time and needs nothing but the batch, so it is no work for the thread that reads the
    /// stream.
    package consuming func ordered() -> Batch {
        var batch = self
        for index in batch.tables.indices { batch.tables[index].order() }
        return batch
    }
}

extension TableChanges {
    fileprivate mutating func order() {
        puts.order()
        for index in merges.indices { merges[index].rows.order() }
        removes.order()
        marks.order()
        clears.order()
        clearMarks.order()
        clearsExcept.order()
        let places = swept.order()
        sweptIsUnknown = places.map { sweptIsUnknown[$0] }
        let keys = sweptKeys.order()
        sweptKeysIsUnknown = keys.map { sweptKeysIsUnknown[$0] }
    }
}

extension RowSet {
    /// A row's place, and as much of its key as fits beside it: most comparisons touch no more.
    private struct Place {
        let head: UInt128
        let row: Int
    }

    /// - Returns: Where each row was.
    @discardableResult
    fileprivate mutating func order() -> [Int] {
        guard count > 1 else { return Array(0..<count) }
        let first = key[0]
        let skipped = first.commonPrefixCount
        var places = (0..<count).map { Place(head: first.head($0, after: skipped), row: $0) }
        places.sort { left, right in
            left.head != right.head ? left.head < right.head : precedes(left.row, right.row)
        }
        let rows = places.map(\.row)
        self = selecting(rows)
        return rows
    }

    private func precedes(_ left: Int, _ right: Int) -> Bool {
        for column in key {
            switch column.order(left, right) {
            case ..<0: return true
            case 1...: return false
            default: continue
            }
        }
        return false
    }
}

extension ColumnVector {
    /// How many bytes all rows begin with in common.
    fileprivate var commonPrefixCount: Int {
        guard !ends.isEmpty else { return 0 }
        let first = bytes(0)
        var common = first.count
        for row in 1..<count where common > 0 {
            let other = bytes(row)
            var same = 0
            while same < common, same < other.count,
                first[first.startIndex + same] == other[other.startIndex + same]
            {
                same += 1
            }
            common = same
        }
        return common
    }

    /// A number that orders rows as their values do, as far as it goes.
    fileprivate func head(_ row: Int, after skipped: Int) -> UInt128 {
        switch type {
        case .integer, .boolean, .timestamp:
            return UInt128(UInt64(bitPattern: integers[row]) ^ 1 << 63)
        case .real:
            let bits = reals[row].bitPattern
            return UInt128(bits >> 63 == 1 ? ~bits : bits | 1 << 63)
        case .text, .decimal, .json, .bytes:
            var head: UInt128 = 0
            let rest = bytes(row).dropFirst(skipped).prefix(16)
            for byte in rest { head = head << 8 | UInt128(byte) }
            return head << UInt128(8 * (16 - rest.count))
        }
    }

    /// Negative, zero or positive as one row's value is less than, equal to or more than another's.
    fileprivate func order(_ left: Int, _ right: Int) -> Int {
        switch type {
        case .integer, .boolean, .timestamp:
            return integers[left] < integers[right]
                ? -1 : integers[left] == integers[right] ? 0 : 1
        case .real:
            return reals[left] < reals[right] ? -1 : reals[left] == reals[right] ? 0 : 1
        case .text, .decimal, .json, .bytes:
            let (mine, other) = (bytes(left), bytes(right))
            if mine.lexicographicallyPrecedes(other) { return -1 }
            return other.lexicographicallyPrecedes(mine) ? 1 : 0
        }
    }
}

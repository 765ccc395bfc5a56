/// What a batch means for rows that outlived their keys, once the database has said which did.
///
/// A row that is kept has what it had when its key went. When the key comes back, an add goes on top
/// of a total and sets other columns to null, a patch sets all others to null, a put replaces the row.
/// The plan puts this into a batch's changes, so that a sink needs no statement of its own for it.
package struct KeptPlan {
    /// What is to be done with the remembered rows, in the order of these cases.
    package enum Note: Hashable {
        /// Forget all of the table.
        case forgetTable
        /// Forget a key with all of its rows.
        case forgetKey(Bytes)
        /// Forget a row.
        case forget(RowIdentity)
        /// Remember a row, a key or the table; what was remembered of it is replaced.
        case remember(KeptRow)
    }

    /// The changes as they are to be applied: ``resets`` first.
    package internal(set) var changes: TableChanges
    /// Columns that become null before anything else.
    package private(set) var resets: [Merge] = []
    /// What is to be done with the remembered rows.
    package internal(set) var notes: [Note] = []
    /// Keys of which only those rows go that came back after the others outlived an earlier key of the
    /// name. A sink looks them up before it writes ``notes``.
    package private(set) var returned: [ReturnedRows] = []
    /// Rows that were to go, and stay because they outlived their keys: so do their dead letters.
    package private(set) var staying: Set<RowIdentity> = []
    let mapping: TableMapping
    let known: [RowIdentity: Kept]
    let keptNow: [RowIdentity: Kept]
    private var excepted: Set<RowIdentity> = []
    private var sweptNow: Set<Bytes> = []  // of which nothing is left but what is put

    /// The rows of which a sink must look up whether they are kept, with the key and the table that
    /// they belong to.
    package static func questions(_ changes: TableChanges) -> [RowIdentity] {
        var rows = changes.puts.identities + changes.spared.identities
        for merge in changes.merges { rows += merge.rows.identities }
        return rows + changes.removes.identities + changes.marks.identities
            + changes.swept.identities + changes.sweptKeys.identities
    }

    /// Plans.
    ///
    /// - Parameters:
    ///   - changes: The batch's changes of the table.
    ///   - mapping: The table.
    ///   - known: The remembered rows among ``questions(_:)``, their keys and the table.
    package init(
        _ changes: TableChanges, mapping: TableMapping, known: [RowIdentity: Kept],
    ) {
        var changes = changes
        changes.keepSweptBeforeFlush(mapping, known: known)
        self.changes = changes
        self.mapping = mapping
        self.known = known
        keptNow = Dictionary(
            changes.kept.map { ($0.identity, $0.state) }, uniquingKeysWith: { $1 })
        noteRemovals()
        resolveSweptKeys()
        noteKept { $0.isWide(mapping) }
        // What a row was before its key went is no return of the key.
        for row in changes.puts.identities where keptNow[row] == nil { end(row) }
        resolveSpared()
        resolveSwept()
        for index in changes.merges.indices where changes.merges[index].isUpsert {
            resolve(changes.merges[index])
        }
        leaveOutlived()
        for row in self.changes.removes.identities {
            // Of a member that is there no more nothing need be known.
            if mapping.isOneRowPerKey {
                end(row)
            } else if !row.member.isEmpty, known[row] != nil {
                notes.append(.forget(row))
            }
        }
        for row in self.changes.marks.identities { end(row) }
        noteKept { !$0.isWide(mapping) }
        if !returned.isEmpty || self.changes.wipe != nil {
            excepted = Set(self.changes.clearsExcept.identities)
        }
    }

    /// Those of some rows of ``returned`` keys, or of a wiped table, that go: what the batch puts stays.
    package func leaving(_ rows: [RowIdentity]) -> RowSet {
        var result = RowSet(key: mapping.primaryKey, values: [])
        for row in rows where !excepted.contains(row) {
            // A row of which the name does not fit is nobody's that Sluice knows.
            guard mapping.keys.split(row.key.span) != nil else { continue }
            try? result.append(row, mapping)
        }
        return result
    }

    /// How rows stand that outlived their keys, by what is remembered of them, their keys and the
    /// table.
    package static func outlived(
        _ rows: [RowIdentity], _ mapping: TableMapping, known: [RowIdentity: Kept],
    ) -> [RowIdentity: Kept] {
        let plan = KeptPlan(
            TableChanges(table: 0, mapping: mapping), mapping: mapping, known: known)
        return Dictionary(
            rows.compactMap { row in plan.state(row).map { (row, $0) } }, uniquingKeysWith: { $1 })
    }

    private func state(_ row: RowIdentity) -> Kept? {
        let state = wideNow(row) ?? known[row] ?? wideBefore(row)
        return state == .ended ? nil : state
    }

    // How a row stood before what this batch does to it. One that has an entry of its own was there
    // when all of its key or table went; any other that is written came back after that.
    func stateBefore(_ row: RowIdentity) -> Kept? {
        guard keptNow[row] != nil else { return state(row) }
        let state = known[row] ?? wideBefore(row)
        return state == .ended ? nil : state
    }

    // How all rows of a key or the table stand since this batch, which replaces what was before.
    private func wideNow(_ row: RowIdentity) -> Kept? {
        (mapping.isOneRowPerKey ? nil : keptNow[RowIdentity(key: row.key)])
            ?? keptNow[RowIdentity(key: [])]
    }

    func wideBefore(_ row: RowIdentity) -> Kept? {
        (mapping.isOneRowPerKey ? nil : known[RowIdentity(key: row.key)])
            ?? known[RowIdentity(key: [])]
    }

    mutating func end(_ row: RowIdentity) {
        // The name of an empty member stands for the whole key.
        guard mapping.isOneRowPerKey || !row.member.isEmpty else { return }
        if wideNow(row) != nil || wideBefore(row) != nil {
            notes.append(.remember(KeptRow(identity: row, state: .ended)))
        } else if known[row] != nil {
            notes.append(.forget(row))
        }
    }

    private mutating func noteRemovals() {
        if changes.wipe != nil { notes.append(.forgetTable) }
        for key in Set((changes.clears.identities + changes.clearMarks.identities).map(\.key)) {
            notes.append(.forgetKey(key))
        }
    }

    private mutating func resolveSwept() {
        let rows = changes.swept
        guard rows.count > 0 else { return }
        let cleared = Set((changes.clears.identities + changes.clearMarks.identities).map(\.key))
        let gone = rows.identities.indices.filter { index in
            let row = rows.identities[index]
            if cleared.contains(row.key) { return true }
            if let now = keptNow[row] { return now == .ended }
            return switch state(row) {
            case nil, .ended, .back: true
            case .doubtful: changes.sweepsDoubtful
            case .gone: false
            }
        }
        staying = Set(rows.identities)
        for row in gone {
            switch policy(isUnknown: changes.sweptIsUnknown[row]) {
            case .keep: continue
            case .delete: changes.removes.append(rows, row)
            case .mark: changes.marks.append(rows, row)
            }
            staying.remove(rows.identities[row])
        }
        changes.swept = rows.selecting([])
        changes.sweptIsUnknown = []
    }

    private func policy(isUnknown: Bool) -> RemovalPolicy {
        isUnknown ? mapping.removal.onMissing : mapping.removal.onDelete
    }

    private mutating func resolveSweptKeys() {
        let keys = changes.sweptKeys
        guard keys.count > 0 else { return }
        for (index, key) in keys.identities.enumerated() {
            // What befell the key itself came after it was swept; what befell the table, before.
            let isFlushed = keptNow[key] == nil && keptNow[RowIdentity(key: [])] != nil
            let policy = policy(isUnknown: changes.sweptKeysIsUnknown[index])
            guard !isFlushed, policy != .keep else { continue }
            guard !known.hasOutlived(key) else {
                returned.append(ReturnedRows(key: key.key, marks: policy != .delete))
                continue
            }
            if policy == .delete {
                changes.clears.append(keys, index)
            } else {
                changes.clearMarks.append(keys, index)
            }
            notes.append(.forgetKey(key.key))
            sweptNow.insert(key.key)
        }
        changes.sweptKeys = keys.selecting([])
        changes.sweptKeysIsUnknown = []
    }

    private mutating func resolve(_ merge: Merge) {
        var all: [Int] = []
        var others: [Int] = []
        for (index, row) in merge.rows.identities.enumerated() {
            switch stateBefore(row) {
            case .doubtful:
                all.append(index)
                if keptNow[row] == nil { end(row) }
            case .gone where merge.beginsWithAdd:
                others.append(index)
                remember(row, .back, instead: .gone)
            case .gone:
                all.append(index)
                if keptNow[row] == nil { end(row) }
            case .back, .ended, nil: break
            }
        }
        reset(merge, all, mapping.values.indices.map { $0 })
        reset(
            merge, others,
            mapping.values.indices.filter { column in
                let action = merge.columns.firstIndex(of: column).map { merge.actions[$0] }
                return action == .mergeObject
                    || action == nil && !mapping.values[column].type.isTotal
            })
    }

    mutating func remember(_ row: RowIdentity, _ state: Kept, instead old: Kept) {
        guard keptNow[row] == nil, state != old,
            mapping.isOneRowPerKey || !row.member.isEmpty
        else { return }
        notes.append(.remember(KeptRow(identity: row, state: state)))
    }

    // The deadline of another type's key is not that of a row that outlived its own.
    private mutating func leaveOutlived() {
        for index in changes.merges.indices where !changes.merges[index].isUpsert {
            let rows = changes.merges[index].rows
            let own = rows.identities.indices.filter { row in
                let state = stateBefore(rows.identities[row])
                return state != .gone && state != .doubtful
            }
            if own.count < rows.count { changes.merges[index].rows = rows.selecting(own) }
        }
        changes.merges.removeAll { $0.rows.count == 0 }
    }

    private mutating func reset(_ merge: Merge, _ rows: [Int], _ columns: [Int]) {
        guard !rows.isEmpty, !columns.isEmpty else { return }
        var reset = Merge(
            columns: columns, actions: columns.map { _ in .set }, isUpsert: false, mapping: mapping)
        reset.rows.identities = rows.map { merge.rows.identities[$0] }
        reset.rows.key = merge.rows.key.map { $0.selecting(rows) }
        for index in reset.rows.values.indices {
            for _ in rows { reset.rows.values[index].appendNull() }
        }
        resets.append(reset)
    }

    // The widest first: they replace what was remembered of single rows.
    private mutating func noteKept(_ isMeant: (KeptRow) -> Bool) {
        let rows = changes.kept.filter(isMeant)
        for row in rows where row.identity.key.isEmpty { notes += [.forgetTable, .remember(row)] }
        for row in rows where !row.identity.key.isEmpty {
            if row.isWide(mapping) {
                notes.append(.forgetKey(row.identity.key))
                if row.state == .ended, sweptNow.contains(row.identity.key) { continue }
            }
            notes.append(.remember(row))
        }
    }
}

/// The rows of a key that came back after the others outlived an earlier key of the name.
package struct ReturnedRows: Hashable, Sendable {
    /// The key.
    package let key: Bytes
    /// Whether they are marked as removed, rather than deleted.
    package let marks: Bool
    /// How such rows are remembered.
    package static let states: [Kept] = [.back, .ended]
}

extension KeptRow {
    /// Whether it stands for all rows of a key or of the table.
    fileprivate func isWide(_ mapping: TableMapping) -> Bool {
        identity.key.isEmpty || identity.member.isEmpty && !mapping.isOneRowPerKey
    }
}

extension [RowIdentity: Kept] {
    /// Whether rows of a key outlived it, but for those that came back.
    fileprivate func hasOutlived(_ key: RowIdentity) -> Bool {
        switch self[key] ?? self[RowIdentity(key: [])] {
        case nil, .ended: false
        case .gone, .doubtful, .back: true
        }
    }
}

extension TableChanges {
    /// Of rows and keys that were swept and then stood out of a flush that keeps rows (``Kept/ended``),
    /// those stay as they were that had outlived their keys before.
    fileprivate mutating func keepSweptBeforeFlush(
        _ mapping: TableMapping, known: [RowIdentity: Kept],
    ) {
        let rows = Set(swept.identities)
        let keys = Set(sweptKeys.identities)
        guard !rows.isEmpty || !keys.isEmpty else { return }
        for index in kept.indices where kept[index].state == .ended {
            let identity = kept[index].identity
            if keys.contains(identity), known.hasOutlived(identity) {
                kept[index] = KeptRow(
                    identity: identity, state: known[identity] ?? .gone)
            } else if rows.contains(identity) {
                let wide = mapping.isOneRowPerKey ? nil : known[RowIdentity(key: identity.key)]
                switch known[identity] ?? wide ?? known[RowIdentity(key: [])] {
                case .gone: kept[index] = KeptRow(identity: identity, state: .gone)
                case .doubtful where !sweepsDoubtful:
                    kept[index] = KeptRow(identity: identity, state: .doubtful)
                case .doubtful, .back, .ended, nil: break
                }
            }
        }
    }
}

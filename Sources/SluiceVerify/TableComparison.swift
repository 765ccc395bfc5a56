internal import SluiceCore

/// Compares rows of one table.
struct TableComparison {
    /// The rows that are looked at again together.
    private static let suspectsMax = 1_000
    /// The rows that are looked at in one go, at one offset.
    private static let lookMax = 100
    /// How often a row must differ: a key past its deadline reads as gone before the stream says so,
    /// and a field past its own for longer.
    private static let strikesMax = 3
    /// The pauses before each look but the first, in milliseconds.
    private static let pauses = [100, 500, 400, 1_500, 100, 300, 500, 1_000, 1_500, 2_000]

    let mapping: TableMapping
    let redis: RedisRows
    let database: DatabaseRows
    let instance: (any RunningInstance)?
    /// Whether the stream has offsets that a place can be named by.
    let isExact: Bool
    let repairs: Bool

    /// What a look says of a row.
    private enum Finding {
        case equal, kept, setAside
        /// It could not be compared at this place.
        case open
        case different(expected: [String?]?, found: [String?]?)
    }

    /// The rows that differ at first sight.
    func suspects(among rows: [RowIdentity]) async throws -> [RowIdentity] {
        var suspects: [RowIdentity] = []
        for start in stride(from: 0, to: rows.count, by: DatabaseRows.pageMax) {
            let part = Array(rows[start..<min(rows.count, start + DatabaseRows.pageMax)])
            let stored = try database.values(of: part, mapping)
            let expected = try await redis.values(of: part, mapping)
            for (row, values) in zip(part, expected) where !isEqual(values, stored[row]) {
                suspects.append(row)
            }
        }
        return suspects
    }

    /// Finds out about rows that differ at first sight, once there are enough of them or no more come.
    func settle(
        _ suspects: inout [RowIdentity], _ outcome: inout Outcome, isLast: Bool = false,
    ) async throws {
        while suspects.count >= Self.suspectsMax || isLast && !suspects.isEmpty {
            let part = Array(suspects.prefix(Self.suspectsMax))
            suspects.removeFirst(part.count)
            guard let instance else {
                for difference in try await differences(part) { outcome.add(difference) }
                continue
            }
            var found = try await looked(part, instance, &outcome)
            let mendable = found.filter(\.hasKey).map(\.identity)
            if repairs, !mendable.isEmpty {
                try await instance.readAgain(mendable, table: mapping.name)
                try await instance.flush()
                outcome.repaired += mendable.count
                found = found.filter { !$0.hasKey }
                found += try await looked(mendable, instance, &outcome)
            }
            for difference in found { outcome.add(difference) }
        }
    }

    private func isEqual(_ expected: [String?]?, _ found: [String?]?) -> Bool {
        // A server that does not say deadlines as times leaves them out.
        guard !redis.hasExpireTime, let deadline = mapping.deadline else {
            return Text.areSame(expected, found)
        }
        return Text.areSame(expected?.prefix(deadline), found?.prefix(deadline))
    }

    // Nobody writes: what differs, differs.
    private func differences(_ rows: [RowIdentity]) async throws -> [Difference] {
        let stored = try database.values(of: rows, mapping)
        let expected = try await redis.values(of: rows, mapping)
        var found: [(row: RowIdentity, expected: [String?]?, found: [String?]?)] = []
        for (row, values) in zip(rows, expected) where !isEqual(values, stored[row]) {
            if mapping.type == .stream, values == nil { continue }
            found.append((row, values, stored[row]))
        }
        return try await named(found)
    }

    private func named(
        _ found: [(row: RowIdentity, expected: [String?]?, found: [String?]?)],
    ) async throws -> [Difference] {
        let haveKeys = try await redis.haveKeys(found.map(\.row.key), mapping)
        return zip(found, haveKeys).map { row, hasKey in
            Difference(
                table: mapping.name, identity: row.row, row: name(row.row),
                expected: row.expected, found: row.found, hasKey: hasKey)
        }
    }

    /// A row that no key of the table's pattern makes.
    func foreign(_ row: DatabaseRows.Found) -> Difference {
        Difference(
            table: mapping.name, identity: row.identity, row: row.parts.map(Text.of),
            expected: nil, found: [], hasKey: false)
    }

    private func name(_ row: RowIdentity) -> [String] {
        let parts = (mapping.keys.split(row.key.span) ?? []).map { Text.of(Array(row.key[$0])) }
        return parts + (mapping.member == nil ? [] : [Text.of(row.member)])
    }

    // MARK: Looking again

    private func looked(
        _ rows: [RowIdentity], _ instance: any RunningInstance, _ outcome: inout Outcome,
    ) async throws -> [Difference] {
        var strikes: [RowIdentity: Int] = [:]
        var found: [(row: RowIdentity, expected: [String?]?, found: [String?]?)] = []
        var open = rows
        for pause in [0] + Self.pauses where !open.isEmpty {
            if pause > 0 { try await ContinuousClock().sleep(for: .milliseconds(pause)) }
            var rest: [RowIdentity] = []
            for start in stride(from: 0, to: open.count, by: Self.lookMax) {
                let part = Array(open[start..<min(open.count, start + Self.lookMax)])
                for (row, finding) in zip(part, try await look(part, instance)) {
                    switch finding {
                    case .equal: break
                    case .kept: outcome.kept += 1
                    case .setAside: outcome.setAside += 1
                    case .open: rest.append(row)
                    case .different(let expected, let stored):
                        strikes[row, default: 0] += 1
                        if strikes[row] == Self.strikesMax {
                            found.append((row, expected, stored))
                        } else {
                            rest.append(row)
                        }
                    }
                }
            }
            open = rest
        }
        for row in open {
            outcome.leaveOpen(([mapping.name] + name(row)).joined(separator: " "))
        }
        return try await named(found)
    }

    private func look(
        _ rows: [RowIdentity], _ instance: any RunningInstance,
    ) async throws -> [Finding] {
        var findings: [Finding] = []
        for part in try await redis.parts(of: rows, mapping) {
            let seen =
                isExact
                ? try await atOneOffset(part, instance) : try await holdingStill(part, instance)
            findings += seen ?? part.map { _ in .open }
        }
        return findings
    }

    // Redis is read while the stream is held, which then goes on to just there.
    private func atOneOffset(
        _ part: [RedisRows.Part], _ instance: any RunningInstance,
    ) async throws -> [Finding]? {
        guard let hold = try await instance.hold() else { return nil }
        let findings: [Finding]?
        do {
            findings = try await held(part, instance, hold)
        } catch {
            _ = try? await instance.release(hold)
            throw error
        }
        return try await instance.release(hold) ? findings : nil
    }

    private func held(
        _ part: [RedisRows.Part], _ instance: any RunningInstance, _ hold: HeldPlace,
    ) async throws -> [Finding]? {
        guard let answer = try await redis.valuesAtOnce(of: part, mapping),
            answer.place.history == hold.history, answer.place.offset >= hold.offset,
            try await instance.advance(
                to: HeldPlace(
                    number: hold.number, offset: answer.place.offset, history: hold.history))
        else { return nil }
        let rows = part.map(\.row)
        return zip(rows, try judge(rows, answer.values)).map { row, finding in
            if case .different = finding, answer.expiring.contains(row) { return .open }
            return finding
        }
    }

    // Without offsets: a row that is the same in Redis while all of it is committed.
    private func holdingStill(
        _ part: [RedisRows.Part], _ instance: any RunningInstance,
    ) async throws -> [Finding]? {
        let rows = part.map(\.row)
        let before = try await redis.values(of: rows, mapping)
        try await instance.flush()
        var findings = try judge(rows, before)
        let after = try await redis.values(of: rows, mapping)
        for index in rows.indices where !Text.areSame(before[index], after[index]) {
            findings[index] = .open
        }
        return findings
    }

    private func judge(
        _ rows: [RowIdentity], _ values: RedisRows.Values,
    ) throws -> [Finding] {
        let stored = try database.values(of: rows, mapping)
        let unequal = zip(rows, values).filter { !isEqual($1, stored[$0]) }.map(\.0)
        guard !unequal.isEmpty else { return rows.map { _ in .equal } }
        let setAside = try database.setAside(unequal, mapping)
        let kept = try database.kept(unequal, mapping)
        let loose = try database.loose(unequal, mapping)
        return zip(rows, values).map { row, expected in
            if isEqual(expected, stored[row]) { return .equal }
            if mapping.type == .stream, expected == nil { return .equal }
            if setAside.contains(row) { return .setAside }
            // A row without a key may stay; one that its key came back to has more than Redis.
            let state = kept[row] ?? .ended
            let stays = state != .ended || mapping.removal.onDelete == .keep
            if state == .back || expected == nil && stays { return .kept }
            if loose.contains(row) { return .open }
            return .different(expected: expected, found: stored[row])
        }
    }
}

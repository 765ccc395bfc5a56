import SluiceCore

/// A key of a database.
struct ModelKeyName: Hashable {
    let key: String
    let database: Int
}

/// Which keys the application removed, or put another type in the place of, and which went by themselves.
struct RemovalHistory {
    private struct Former: Hashable {
        let name: ModelKeyName
        let type: RedisType
    }
    private var deleted: Set<Former> = []
    private var wentByItself: Set<Former> = []

    /// Notes what a key became.
    mutating func note(
        _ name: ModelKeyName, from old: RedisType?, to new: RedisType?, isByItself: Bool,
    ) {
        guard let old, old != new else { return }
        let former = Former(name: name, type: old)
        if isByItself { wentByItself.insert(former) } else { deleted.insert(former) }
    }

    /// Notes that the server lost keys that nobody removed.
    mutating func forget() { deleted.formUnion(wentByItself) }

    /// Whether the rows of a key must not have gone.
    func mustStay(_ name: ModelKeyName, _ type: RedisType) -> Bool {
        let former = Former(name: name, type: type)
        return wentByItself.contains(former) && !deleted.contains(former)
    }
}

/// Which keys went by themselves without anybody to tell: the server's events were missed, or were
/// forgotten before the database had what they led to. Nobody marks such keys, so their rows stay until
/// somebody looks for them.
struct UnheardRemovals {
    private var pending: Set<ModelKeyName> = []
    private var lost: Set<ModelKeyName> = []

    /// Notes events that were heard.
    mutating func hear(_ events: [KeyEvent]) { pending.formUnion(events.map(Self.name)) }

    /// Notes that the database has all that was heard.
    mutating func settle() { pending = [] }

    /// Notes that a connection began, and which events were missed before.
    mutating func begin(missed: [KeyEvent]) {
        lost.formUnion(pending)
        lost.formUnion(missed.map(Self.name))
        pending = []
    }

    /// Notes that a key was marked, so that it is read.
    mutating func mark(_ name: ModelKeyName) { lost.remove(name) }

    /// Whether a difference is a row of such a key.
    func explain(_ difference: String, _ mappings: [TableMapping]) -> Bool {
        difference.hasSuffix("should be gone")
            && lost.contains { name in
                mappings.contains {
                    $0.database == name.database
                        && difference.hasPrefix("\($0.name) \(name.key) ")
                }
            }
    }

    private static func name(_ event: KeyEvent) -> ModelKeyName {
        ModelKeyName(key: String(decoding: event.key, as: UTF8.self), database: event.database)
    }
}

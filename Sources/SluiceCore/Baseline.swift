/// The state of reading every mapped key once.
///
/// ```
/// done ──gap, SWAPDB──▶ scanning ──last key──▶ sweeping ──last row──▶ finishing ──commit──▶ done
/// ```
struct Baseline {
    enum Phase: Equatable {
        case done
        /// SCAN walks the keys of each prefix.
        case scanning(prefix: Int, cursor: Bytes)
        /// The database's rows are looked up in Redis.
        case sweeping(table: Int, after: RowIdentity?)
        /// All is read; the next cut that closes ends it.
        case finishing
    }

    static let firstCursor = Bytes("0".utf8)

    var phase = Phase.done
    /// The highest offset at which something was read, scanned or looked up for it. Only when the
    /// stream is processed up to there does what was found, and what was not, hold.
    var floor = Int64.min
    /// How often it was started: an answer to a question of an earlier one means nothing.
    private(set) var generation = 0
    let walks: [Walk]

    /// Which keys SCAN walks through.
    struct Walk {
        /// The number of their database.
        let database: Int
        let glob: Bytes
    }

    init(mappings: [TableMapping]) {
        var walks: [Walk] = []
        let ordered = mappings.sorted { $0.keys.prefix.count < $1.keys.prefix.count }
        var covered: [(database: Int, prefix: Bytes)] = []
        for mapping in ordered {
            let pattern = mapping.keys
            let isCovered = covered.contains {
                $0.database == mapping.database && pattern.prefix.starts(with: $0.prefix)
            }
            if isCovered { continue }
            // A pattern without a placeholder is one key, and covers no other.
            if !pattern.columns.isEmpty { covered.append((mapping.database, pattern.prefix)) }
            walks.append(Walk(database: mapping.database, glob: pattern.glob))
        }
        self.walks = walks
    }

    var isRunning: Bool { phase != .done }
    var isFinishing: Bool { phase == .finishing }
    var isScanning: Bool { if case .scanning = phase { true } else { false } }

    /// Whether a cut at an offset ends it.
    func ends(at offset: Int64) -> Bool { isFinishing && floor <= offset }

    mutating func start() {
        floor = .min
        generation += 1
        phase = walks.isEmpty ? .finishing : .scanning(prefix: 0, cursor: Self.firstCursor)
    }
}

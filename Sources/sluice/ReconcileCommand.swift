import ArgumentParser
import Foundation
import SluiceAdmin
import SluiceCore

struct ReconcileCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reconcile",
        abstract: "Count the rows that have no key in Redis any more, or delete them.",
        discussion: """
            Such rows stay after a gap in Redis's stream, because nobody saw why their keys went. \
            Rows that outlived their keys as on_expire, on_evict or on_flush say, append-only tables \
            and tables with `on_delete: keep` are neither counted nor deleted. Needs the running \
            instance, which looks at each row once more before it goes. Exits with 65 when it refuses.
            """)

    @OptionGroup var options: CommonOptions
    @Flag(help: "Delete them, or mark them where on_delete says so.") var deleteMissing = false
    @Flag(help: "Rows too that stay only because nobody knows why their keys went.")
    var doubtful = false
    @Option(help: "The share of a table's rows above which nothing is deleted without --yes.")
    var share: Percentage = Percentage(share: 0.1)
    @Flag(help: "Delete however many they are.") var yes = false
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let admin = AdminClient(configuration: try options.load())
        let counts = try await pass(admin, limits: nil)
        let large = counts.filter {
            $0.value.missing > 0
                && Double($0.value.missing) > Double($0.value.rows) * share.share
        }
        if deleteMissing, !large.isEmpty, !yes {
            try report(counts, .refused)
            Terminal.complain(
                "nothing is deleted: in \(large.keys.sorted().joined(separator: ", ")) more than "
                    + "\(share.share * 100)% of the rows have no key",
                hint: "is this the right Redis, with its data? Then add --yes")
            throw Sysexits.data
        }
        guard deleteMissing else { return try report(counts, .counted) }
        if !json { try report(counts, .agreed) }
        // Rows whose keys went since they were counted are not what was agreed to.
        let deleted = try await pass(
            admin, limits: counts.mapValues { $0.missing + $0.missing / 10 })
        try report(deleted, .deleted)
    }

    private func pass(
        _ admin: AdminClient, limits: [String: Int]?,
    ) async throws -> [String: Reconciliation.Count] {
        let request = ReconcileRequest(doubtful: doubtful, limits: limits)
        let body = try JSONEncoder().encode(request)
        let answer = try await admin.ask("POST", "/reconcile", body: body)
        guard answer.status == 200 else {
            let reason = String(decoding: answer.body, as: UTF8.self)
            Terminal.complain(
                reason.trimmingCharacters(in: .whitespacesAndNewlines),
                hint: "rows that were deleted before this stay deleted; run it again")
            throw Sysexits.temporary
        }
        return try JSONDecoder().decode([String: Reconciliation.Count].self, from: answer.body)
    }

    private struct Report: Encodable {
        let tables: [String: Reconciliation.Count]
        let isDeleted: Bool
    }

    /// What becomes of the rows that were counted.
    private enum Fate {
        case counted, refused, agreed, deleted
    }

    private func report(_ counts: [String: Reconciliation.Count], _ fate: Fate) throws {
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
            let report = Report(tables: counts, isDeleted: fate == .deleted)
            return print(String(decoding: try encoder.encode(report), as: UTF8.self))
        }
        for (table, count) in counts.sorted(by: { $0.key < $1.key }) {
            let verb = fate == .deleted ? "were deleted" : "have no key"
            print("\(table): \(count.missing) of \(count.rows) rows \(verb)")
        }
        if fate == .counted, counts.values.contains(where: { $0.missing > 0 }) {
            print("--delete-missing deletes them")
        }
    }
}

/// The address of a PostgreSQL server, as libpq takes it.
package enum PostgresAddress {
    /// The same address, with the server's certificate verified if it is on another machine and the
    /// address says nothing of `sslmode`: libpq's own default would take any.
    ///
    /// - Parameter certificates: A file of certificate authorities to trust, or nil for libpq's own.
    package static func verified(_ url: String, certificates: String?) -> String {
        let parts = url.split(separator: "?", maxSplits: 1)
        let query = parts.count == 2 ? String(parts[1]) : ""
        let names = Set(query.split(separator: "&").map { $0.prefix { $0 != "=" } })
        guard let start = url.firstRange(of: "://"), !names.contains("sslmode"),
            !names.contains("host"), !names.contains("hostaddr"), !names.contains("service")
        else { return url }
        let authority = parts[0][start.upperBound...].prefix { $0 != "/" }
        let hosts = authority.split(separator: "@", omittingEmptySubsequences: false).last ?? ""
        guard hosts.split(separator: ",").contains(where: { !isLocal($0) }) else { return url }
        var settings = ["sslmode=verify-full"]
        if let certificates, !names.contains("sslrootcert") {
            settings.append("sslrootcert=" + certificates)
        }
        return url + (query.isEmpty && !url.hasSuffix("?") ? "?" : query.isEmpty ? "" : "&")
            + settings.joined(separator: "&")
    }

    // A socket's path is written with %2F.
    private static func isLocal(_ host: Substring) -> Bool {
        if host.hasPrefix("[::1]") { return true }
        let name = host.prefix { $0 != ":" }
        return name.isEmpty || name == "localhost" || name.hasPrefix("127.")
            || name.lowercased().hasPrefix("%2f")
    }
}

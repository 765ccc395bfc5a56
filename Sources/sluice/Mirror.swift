/// The configuration that mirrors a whole database.
enum Mirror {
    static let text = """
        # A table for each Redis type mirrors a whole database; a key that changes its type moves
        # between them. Removed and expired keys go; rows of evicted and flushed ones stay.
        # If some keys or members are no UTF-8 text: "<key:bytes>" and member: member:bytes.
        redis:
          url: redis://127.0.0.1:6379/0
        database:
          url: sqlite:mirror.db            # or postgres://…
        tables:
          strings:
            keys: "<key>"
            string: { value: bytes }       # text, if all values are UTF-8
            expires_at: expires_at
            on_expire: delete
          hashes:
            keys: "<key>"
            hash: {}
            rest: fields
            expires_at: expires_at
            on_expire: delete
          lists:
            keys: "<key>"
            list: { items: json }
            expires_at: expires_at
            on_expire: delete
          sets:
            keys: "<key>"
            set: { member: member }
            on_expire: delete
          sorted_sets:
            keys: "<key>"
            sorted_set: { member: member, score: score }
            on_expire: delete
          streams:
            keys: "<key>"
            stream: { id: id, fields: fields }

        """
}

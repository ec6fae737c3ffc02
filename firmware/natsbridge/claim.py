"""The links of a received message: fetched from where they may lead, and consumed once."""

from .errors import URL_NOT_ALLOWED, fail
from .log import trace
from .sink import Target


class Claims:
    """Redeems the links of the envelope `env` for its receiver `nc`."""

    def __init__(self, nc, env, sink, fileserver_url, allowed_urls, deadline):
        if fileserver_url is None:
            from . import setting

            fileserver_url = setting("FILESERVER_URL", "http://localhost:8080")
        self.nc = nc
        self.env = env
        self.sink = sink
        self.url = fileserver_url
        if isinstance(allowed_urls, str):
            allowed_urls = (allowed_urls,)
        self.prefixes = [fileserver_url]
        self.prefixes.extend(allowed_urls)
        self.asked = False  # for the file server's download domains
        self.deadline = deadline

    def check(self, url):
        """Raise URL_NOT_ALLOWED if a payload's URL, or a redirection, leads elsewhere."""
        from .urls import allowed, origin

        if allowed(url, self.prefixes):
            return
        if not self.asked:
            from .plikadmin import download_domains

            self.asked = True
            self.prefixes.extend(download_domains(self.url, self.deadline, self.nc.serve))
            if allowed(url, self.prefixes):
                return
        raise fail(URL_NOT_ALLOWED, "url", url, self.url, origin(url), url=url)

    def fetch(self, item, handler, max_retries, base_delay, max_delay, on_progress, buf):
        """Fetch one payload into its target, through `buf`."""
        from .download import download, fetch_with_backoff

        name = item["dataname"]
        url = item["data"]
        size = item.get("size")
        digest = item["metadata"].get("sha256") or ""
        cid = self.env["correlation_id"]
        trace(cid, "Fetching %r from %s" % (name, url))
        if handler and handler is not fetch_with_backoff:
            from .handover import download_by

            data = download_by(handler, url, max_retries, base_delay, max_delay, cid, size, digest)
            self.sink.check(name, len(data))
            target = self.sink.open(name, item["payload_type"], len(data))
            target.write(data)
        else:
            target = self.sink.open(name, item["payload_type"], size)
            got = download(
                url,
                target,
                size=size,
                sha256=digest,
                allow=self.check,
                limit=self.sink.limit,
                dataname=name,
                max_retries=max_retries,
                base_delay=base_delay,
                max_delay=max_delay,
                correlation_id=cid,
                on_progress=on_progress,
                idle=self.nc.serve,
                deadline=self.deadline,
                buf=buf,
            )
            if target is None:
                target = Target(got, memory=True)
                target.at = len(got)
        item["target"] = target

    def consume(self, items):
        """Delete the files that were meant for this receiver alone, now that they are here.

        Only if the message names this receiver, its sender marked the file as removable, size and
        digest were verified, and the URL is that of one file.
        """
        env = self.env
        nc = self.nc
        if env["receiver_id"]:
            mine = env["receiver_id"] == nc.id
        else:
            mine = env["receiver_name"] != "" and env["receiver_name"] == nc.name
        for item in items:
            metadata = item["metadata"]
            if (
                mine
                and metadata.get("removable")
                and metadata.get("sha256")
                and item.get("size") is not None
                and _is_file(item["data"])
            ):
                from .plikadmin import remove

                remove(item["data"], "", env["correlation_id"])


def _is_file(url):
    """Whether the URL's path is exactly /file/<upload>/<file>/<name>."""
    from .urls import parse

    parts = parse(url)[3].split("/")
    return len(parts) == 5 and parts[1] == "file" and "" not in parts[2:] and "?" not in url

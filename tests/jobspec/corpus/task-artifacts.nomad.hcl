job "task-artifacts" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      artifact {
        source = "https://example.org/app.tar.gz"
      }
      artifact {
        source      = "https://example.org/tool?x=1"
        destination = "local/bin/tool"
        mode        = "file"
        insecure    = true
        chown       = true
      }
      artifact {
        source = "git::https://example.org/repo.git//sub/dir"
        options {
          ref      = "v1"
          depth    = 1
          checksum = "sha256:${NOMAD_META_sum}"
        }
        headers {
          X-Token = "secret"
        }
      }
      artifact {
        source = "https://example.org/dir/one.bin?raw=true"
        mode   = "file"
      }
    }
  }
}

job "config-runtime-names" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "repo/${attr.cpu.arch}:${NOMAD_META_v}"
        args  = ["-p", "${NOMAD_PORT_http}", NOMAD_ALLOC_ID]
        labels = {
          id = "${NOMAD_ALLOC_ID}"
        }
      }
    }
  }
}

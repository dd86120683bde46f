job "lang-runtime-functions" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      env {
        A = "${upper(NOMAD_TASK_NAME)}"
        B = "${NOMAD_META_x == "a" ? 1 : 2}"
        C = "${join(",", [NOMAD_A, attr.b])}"
        D = "${NOMAD_X == "${NOMAD_X}"}"
      }
    }
  }
}

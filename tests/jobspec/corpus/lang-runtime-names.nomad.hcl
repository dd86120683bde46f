job "lang-runtime-names" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      env {
        A = "${attr.kernel.name}-${node.unique.id}"
        B = "${NOMAD_IP_db}"
        C = "${env["HOME"]}"
        D = NOMAD_TASK_NAME
        E = "${meta.my-key}"
        F = "${attr.driver.x.2}"
        G = "${a.b[0].c}"
        H = "{${NOMAD_X}}"
        I = "${attr["x.2"]}"
      }
    }
  }
}
